//! Tables over the scripts: state in, call, answer, state out, on a real Redis by the typed calls.

mod bells;
mod bounds;
mod coordination;
mod dataset;
mod dead;
mod demand;
mod durable;
mod end_to_end;
mod facts;
mod fetch;
mod full;
mod groups;
mod letters;
mod members;
mod peek;
mod preflight;
mod publish;
mod readonly;
mod repair;
mod runs;
mod settle;
mod streams;
mod sweep;
mod tasks;
mod tracked;
mod world;

//! End to end: real daemons, a real Redis, the public doors; each test is a sentence of the README.

mod counting;
mod dead_letters;
mod delivery;
mod direct;
mod doors;
mod fleet;
mod gone;
mod groups;
mod history;
mod joins;
mod member;
mod outcomes;
mod precedence;
mod pull;
mod python;
mod refusals;
mod repeats;
mod sessions;
mod sharing;
mod streams;
mod tasks;
mod times;
mod tracked;
mod unheard;
mod wakes;
mod workflows;

//! End to end: real daemons, a real Redis, the public doors; each test is a sentence of the README.

mod delivery;
mod direct;
mod fleet;
mod member;
mod precedence;
mod sharing;
mod times;

//! The client's side of the wire contract, frame by frame, against a gateway that the test plays.

mod dead_letters;
mod peer;
mod publisher;
mod worker;
mod workflows;

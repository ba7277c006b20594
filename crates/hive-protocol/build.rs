//! Compiles `proto/` with protox (no protoc needed) into Rust for `wire.rs`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let mut files = Vec::new();
    for entry in fs::read_dir(root.join("agenthive/v1"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "proto") {
            files.push(path);
        }
    }
    files.sort();
    println!("cargo::rerun-if-changed={}", root.display());
    let set = protox::compile(&files, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("agenthive.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".agenthive.v1")
        .btree_map(".agenthive.v1")
        .compile_fds(set)?;
    Ok(())
}

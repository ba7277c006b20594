//! Compiles `proto/` with protox (no protoc needed) into Rust for `wire.rs` and
//! `externalscaler.rs`.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let ours = compile(&root, "agenthive/v1", "agenthive.bin")?;
    tonic_prost_build::configure()
        .bytes(".agenthive.v1")
        .btree_map(".agenthive.v1")
        .compile_fds(ours)?;
    let kedas = compile(&root, "externalscaler", "externalscaler.bin")?;
    tonic_prost_build::configure()
        .btree_map(".externalscaler")
        .compile_fds(kedas)?;
    Ok(())
}

/// The descriptors of all files of `folder`, which are written to `bin` as well.
fn compile(
    root: &Path,
    folder: &str,
    bin: &str,
) -> Result<prost_types::FileDescriptorSet, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root.join(folder))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "proto") {
            files.push(path);
        }
    }
    files.sort();
    let set = protox::compile(&files, [root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join(bin), set.encode_to_vec())?;
    Ok(set)
}

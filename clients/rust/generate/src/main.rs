//! Generates the messages and clients of `lpfileshare.v1` with protox, a protobuf compiler in Rust, so that no protoc is needed.
//!
//! `generate PROTO_DIR OUT_DIR` writes `OUT_DIR/lpfileshare.v1.rs`.

use std::{env, error::Error, fs, path::PathBuf};

/// The messages with secret fields. Their `Debug` is written by hand: see `src/redact.rs`.
const SECRET: [&str; 8] = [
    "SignInConsumerRequest",
    "SignInConsumerRequest.grant",
    "SignInConsumerResponse",
    "RenewConsumerRequest",
    "RenewConsumerResponse",
    "PasswordCredentials",
    "BotKeys",
    "SignInAgentResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1).map(PathBuf::from);
    let (Some(proto), Some(out)) = (args.next(), args.next()) else {
        return Err("usage: generate PROTO_DIR OUT_DIR".into());
    };
    let mut files = fs::read_dir(proto.join("lpfileshare/v1"))?.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "proto"));
    files.sort();
    let descriptors = protox::compile(files, [proto])?;

    let mut config = prost_build::Config::new();
    config.bytes([".lpfileshare.v1.DataChunk.data", ".lpfileshare.v1.UploadSmallFileRequest.data"]);
    config.skip_debug(SECRET.map(|name| format!(".lpfileshare.v1.{name}")));
    fs::create_dir_all(&out)?;
    tonic_prost_build::configure().build_server(false).out_dir(out).compile_fds_with_config(descriptors, config)?;
    Ok(())
}

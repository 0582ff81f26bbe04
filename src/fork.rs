//! `millpond fork`: a running server's data directory of this moment, as another one that a second server begins on.

use std::path::PathBuf;

use serde_json::json;

use crate::client::Server;
use crate::failure::Failure;
use crate::sql::print_all;

/// Flags of the command.
#[derive(clap::Args)]
pub struct Args {
    /// The data directory to be made, on the server's machine; it must hold no store, and lie in the file system of the server's
    /// own, with which it shares its files
    data_dir: PathBuf,
    #[command(flatten)]
    server: Server,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let named = args.data_dir.display();
    let data_dir = std::path::absolute(&args.data_dir).map_err(|error| Failure::Failed(format!("{named}: {error}")))?;
    let data_dir =
        data_dir.to_str().ok_or_else(|| Failure::Usage(format!("{named} is not UTF-8: take another name")))?;
    let fork = args.server.post("/v1/fork", &json!({ "data_dir": data_dir }))?;
    print_all(&format!(
        "forked to {data_dir}: {} files, {} bytes, {} of them shared; start it with millpond serve --data-dir {data_dir} and ports of its own, and \
         where its configuration has a lake.url with {}\n",
        fork["files"],
        fork["bytes"],
        fork["shared_bytes"],
        fork["lake_url"].as_str().unwrap_or_default()
    ));
    Ok(())
}

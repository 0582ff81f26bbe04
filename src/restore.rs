//! `millpond restore`: a backup becomes a data directory, which `millpond serve` then opens. No server is asked.

use std::path::PathBuf;

use lake::Access;
use lake::backup::{backups, restore};

use crate::failure::Failure;
use crate::serve::block_on;
use crate::sql::print_all;

/// Flags of the command.
#[derive(clap::Args)]
pub struct Args {
    /// Where the backups lie: a directory, as a path, file://, hdfs://, s3://, gs:// or az:// URL. Keys and endpoints of object
    /// stores are taken from their variables, as AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL
    url: String,
    /// The data directory to be made; it must hold no store
    #[arg(long, value_name = "DIR", required_unless_present = "list")]
    data_dir: Option<PathBuf>,
    /// The backup; without it, the newest
    #[arg(long)]
    name: Option<String>,
    /// List the backups and restore nothing
    #[arg(long, conflicts_with_all = ["data_dir", "name"])]
    list: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let failed = |error: lake::LakeError| Failure::Failed(error.to_string());
    let access = Access::default();
    let work = async {
        let Some(data_dir) = &args.data_dir else {
            for name in backups(&args.url, &access).await.map_err(failed)? {
                print_all(&format!("{name}\n"));
            }
            return Ok(());
        };
        let report = restore((&args.url, &access), args.name.as_deref(), data_dir).await.map_err(failed)?;
        print_all(&format!(
            "{} restored to {}: {} files, {} bytes; start it with millpond serve --data-dir {}\n",
            report.name,
            data_dir.display(),
            report.files,
            report.bytes,
            data_dir.display()
        ));
        Ok(())
    };
    block_on(work)
}

//! `millpond topics`: what topics a running server has.

use crate::client::{Server, encode, items};
use crate::failure::Failure;
use crate::sql::print_all;
use crate::table;

/// What to do with topics.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Every topic with its partitions, records and bytes
    List {
        #[command(flatten)]
        server: Server,
    },
    /// One topic: its settings, and the offsets of each partition
    Describe {
        /// The topic
        topic: String,
        #[command(flatten)]
        server: Server,
    },
}

const SUMMARY: [&str; 6] = ["name", "partitions", "records", "bytes", "records_per_s", "newest"];
const PARTITION: [&str; 6] = ["partition", "log_start", "high_watermark", "bytes", "leader_epoch", "newest"];

/// Runs the command.
pub fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::List { server } => {
            let answer = server.get("/v1/topics")?;
            print_all(&table::draw_members(&SUMMARY, items(&answer["topics"])));
        }
        Command::Describe { topic, server } => {
            let answer = server.get(&format!("/v1/topics/{}", encode(topic)))?;
            print_all(&table::draw_members(&SUMMARY, [&answer]));
            if let Some(config) = answer["config"].as_object() {
                config
                    .iter()
                    .for_each(|(key, value)| print_all(&format!("{key} = {}\n", value.as_str().unwrap_or_default())));
            }
            print_all(&format!("\n{}", table::draw_members(&PARTITION, items(&answer["partition_list"]))));
        }
    }
    Ok(())
}

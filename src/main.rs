//! The command line: one file per command. Exit codes: 0 done, 1 failed, 2 the command or the configuration is wrong.

mod check;
mod client;
mod ddl;
mod demo;
mod evaluate;
mod failure;
mod fork;
mod generate;
mod job;
mod load;
mod logging;
mod memory;
mod processor;
mod program;
mod restore;
mod serve;
mod signals;
mod simulate;
mod sql;
mod systems;
mod table;
mod topics;
mod verify;

use clap::{Parser, Subcommand};

/// Kafka-compatible broker, live SQL views, Parquet lake, HTTP API and dashboards in one process
#[derive(Parser)]
#[command(name = "millpond", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Args),
    /// Run the server with one of the built-in systems, and feed it
    Demo(demo::Args),
    /// Send simulated events through a real Kafka producer; also the load test
    Simulate(simulate::Args),
    /// Start a source of a running server and show how far it is
    Load(load::Args),
    /// Ask a running server by SQL
    Sql(sql::Args),
    /// Compare what a running server serves and stores with what it was made of
    #[command(subcommand)]
    Verify(verify::Command),
    /// Measure the models of a running server and print their figures
    Evaluate(evaluate::Args),
    /// Write the sample files of a system
    Generate(generate::Args),
    /// Print statements with which Hive or Spark read the lake of a running server
    Ddl(ddl::Args),
    /// Look for what is wrong in the data directory of a server that is stopped
    Check(check::Args),
    /// Make a data directory of a backup
    Restore(restore::Args),
    /// Fork a running server: another data directory of this moment, in which the same files lie, for a second server
    Fork(fork::Args),
    /// Run the jobs of a running server, and list what ran
    #[command(subcommand)]
    Job(job::Command),
    /// List and describe the topics of a running server
    #[command(subcommand)]
    Topics(topics::Command),
}

fn main() {
    memory::bound();
    if let Err(missing) = processor::check() {
        eprintln!("millpond: {missing}");
        program::end(1);
    }
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Sql(args) => sql::run(&args),
        Command::Verify(command) => verify::run(&command),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Ddl(args) => ddl::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Fork(args) => fork::run(&args),
        Command::Job(command) => job::run(&command),
        Command::Topics(command) => topics::run(&command),
    };
    program::end(match result {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("millpond: {failure}");
            failure.exit_code()
        }
    })
}

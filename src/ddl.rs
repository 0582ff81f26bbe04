//! `millpond ddl`: statements with which Hive or Spark read the tables of a running server's lake.

use crate::client::{Server, items};
use crate::failure::Failure;
use crate::sql::print_all;

/// Flags of the command.
#[derive(clap::Args)]
pub struct Args {
    /// Whose SQL it is
    #[arg(value_enum)]
    dialect: Dialect,
    /// One table; without it, all of them
    table: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Dialect {
    /// Apache Hive
    Hive,
    /// Apache Spark
    Spark,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let dialect = match args.dialect {
        Dialect::Hive => "hive",
        Dialect::Spark => "spark",
    };
    let answer = args.server.get(&format!("/v1/lake/ddl?dialect={dialect}"))?;
    let tables = items(&answer["tables"]);
    let wanted = |name: &str| args.table.as_deref().is_none_or(|table| table == name);
    let mut found = false;
    for table in tables.iter().filter(|table| table["table"].as_str().is_some_and(wanted)) {
        found = true;
        for statement in items(&table["statements"]) {
            print_all(&format!("{};\n\n", statement.as_str().unwrap_or_default()));
        }
    }
    match (&args.table, found) {
        (Some(table), false) => {
            let names: Vec<_> = tables.iter().filter_map(|table| table["table"].as_str()).collect();
            Err(Failure::Failed(format!("no table {table} in the lake; there are: {}", names.join(", "))))
        }
        _ => Ok(()),
    }
}

//! The page in a real browser: no errors in its console, nothing fetched from elsewhere, charts drawn, numbers equal to the API's.

use crate::oracle::music;
use crate::support::scripts::{json_of, node};
use crate::support::server::{Options, Server, millpond};
use crate::support::{Scratch, alone};

#[test]
fn the_page_shows_what_the_api_says() {
    let _alone = alone();
    let scratch = Scratch::new("page");
    let system = music(&scratch);
    let server = Server::start_with(&scratch, Options { configs: vec![system], ..Default::default() });
    let mut simulate = millpond();
    simulate.args([
        "simulate",
        "music",
        "--as-fast-as-it-goes",
        "--count",
        "20000",
        "--spread",
        "50m",
        "--bootstrap",
        &server.kafka,
    ]);
    crate::support::kafka::run(&mut simulate);
    let report = json_of(node("clients/page.js").arg(server.http.url("")).arg(scratch.path("page.png")));
    eprintln!("page: {report}");
    let mistakes = report["mistakes"].as_array().unwrap();
    assert!(mistakes.is_empty(), "{mistakes:#?}");
    assert!(report["charts"].as_u64().unwrap() >= 4, "charts are drawn: {report}");
    assert!(report["numbers"].as_array().unwrap().len() >= 3, "numbers are compared: {report}");
}

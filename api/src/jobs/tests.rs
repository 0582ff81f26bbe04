//! Runs in a server: what is called off is not carried out.

use super::*;
use crate::tests::serve;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_called_off_before_it_has_begun_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let jobs = server.work.jobs().clone();
    // The look that starts a run gives the book back before the run has begun.
    let number = {
        let mut book = jobs.book.lock().await;
        let now = jobs.now();
        let number = book.request("nightly", schedule::day_before(now, chrono_tz::Tz::UTC), now).unwrap();
        assert_eq!(book.tick(now), [number]);
        jobs.store(&mut book).await.unwrap();
        number
    };
    assert_eq!(jobs.cancel("nightly").await.unwrap().unwrap(), [number]);
    jobs.clone().carry_out(number).await;
    let book = jobs.book.lock().await;
    let run = book.run(number).unwrap();
    assert_eq!((run.state, run.steps.len()), (RunState::Cancelled, 0));
    drop(book);
    assert!(jobs.running.lock().is_empty());
    server.stop().await;
}

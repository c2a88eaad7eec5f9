//! Jobs by the library: output, ends, exit codes, deaths. Each test has a watchdog and leaves
//! nothing behind.

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use support::{alive, assert_gone, play, role, shell, until, until_running, watchdog};
use windlass_launcher::{Cause, End, Error, Fate, Job, Sink};

/// The rank side of the tests below.
#[test]
fn rank_program() {
    play();
}

#[test]
fn ranks_know_who_they_are_and_lines_stay_whole() {
    let _watchdog = watchdog();
    let script = "for i in 1 2 3 4 5; do printf 'rank %s ' $WINDLASS_RANK; sleep 0.01; echo of $WINDLASS_SIZE; done";
    let outcome = shell(script).ranks(4).run().unwrap();
    assert_eq!(
        (outcome.exit_code, outcome.cause),
        (0, None),
        "{}",
        outcome.message
    );
    let text = outcome.stdout_text();
    assert_eq!(text.lines().count(), 20);
    for line in text.lines() {
        let rank = line
            .strip_prefix("rank ")
            .and_then(|rest| rest.strip_suffix(" of 4"));
        assert!(
            rank.is_some_and(|rank| ["0", "1", "2", "3"].contains(&rank)),
            "{line:?}"
        );
    }
    assert_gone(&outcome);
}

/// A rank on a VE is told which; of a rank on the host the variable is the user's.
#[test]
fn ranks_know_their_ve() {
    let _watchdog = watchdog();
    let where_they_are = |place: &str, env: &[(&'static str, &'static str)]| {
        let job = shell("echo $WINDLASS_RANK ${VE_NODE_NUMBER-none}").ranks(3);
        let job = env
            .iter()
            .fold(job, |job, &(name, value)| job.env(name, value));
        let outcome = job.ves(3).place(place).run().unwrap();
        assert_eq!(outcome.exit_code, 0, "{}", outcome.message);
        let mut lines: Vec<String> = outcome.stdout_text().lines().map(String::from).collect();
        lines.sort();
        lines
    };
    assert_eq!(where_they_are("ve0,ve2,vh", &[])[..2], ["0 0", "1 2"]);
    let told = where_they_are("ve2,ve0,vh", &[("VE_NODE_NUMBER", "1")]);
    assert_eq!(told, ["0 2", "1 0", "2 1"]);
}

#[test]
fn labels_and_partial_last_lines() {
    let _watchdog = watchdog();
    let outcome = shell("printf 'a\\nb'; printf c >&2")
        .ranks(2)
        .tag(true)
        .run()
        .unwrap();
    let lines: BTreeSet<String> = outcome.stdout_text().lines().map(String::from).collect();
    assert_eq!(
        lines,
        ["[0] a", "[0] b", "[1] a", "[1] b"]
            .map(String::from)
            .into()
    );
    assert!(outcome.stderr_text().contains("[1] c\n"));
}

#[test]
fn a_lone_rank_is_forwarded_byte_by_byte() {
    let _watchdog = watchdog();
    let outcome = shell("printf 'x\\r\\000y'").run().unwrap();
    assert_eq!(outcome.stdout, b"x\r\0y");
}

#[test]
fn a_megabyte_of_output_arrives_through_a_writer() {
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);
    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let _watchdog = watchdog();
    let kept = Kept::default();
    let job = shell("yes 0123456789abcde | head -65536").ranks(2);
    let outcome = job
        .stdout(Sink::Writer(Box::new(kept.clone())))
        .run()
        .unwrap();
    assert_eq!(outcome.exit_code, 0, "{}", outcome.message);
    let bytes = kept.0.lock().unwrap();
    assert_eq!(bytes.len(), 2 << 20);
    assert!(bytes.chunks(16).all(|line| line == b"0123456789abcde\n"));
}

#[test]
fn the_lowest_failing_rank_gives_the_exit_code() {
    let _watchdog = watchdog();
    let outcome = shell("test $WINDLASS_RANK = 2 && exit 7; sleep 100")
        .ranks(4)
        .run()
        .unwrap();
    assert_eq!(
        (outcome.exit_code, outcome.cause),
        (7, Some(Cause::Failure))
    );
    assert!(
        outcome.message.contains("rank 2 (vh of node 0"),
        "{}",
        outcome.message
    );
    assert!(
        outcome.message.contains("exited with status 7"),
        "{}",
        outcome.message
    );
    let fates: Vec<Fate> = outcome.ranks.iter().map(|rank| rank.fate).collect();
    assert_eq!(fates, [Fate::Swept, Fate::Swept, Fate::Failed, Fate::Swept]);
    assert_gone(&outcome);
}

/// Programs that refuse their command line have said so themselves; one rank alone has not.
#[test]
fn a_usage_error_of_all_ranks_needs_no_word() {
    let _watchdog = watchdog();
    // All end as nearly together as ranks that have met in a collective end.
    let met = tempfile::tempdir().unwrap();
    let script = "touch $MET/$WINDLASS_RANK; \
                  until [ -e $MET/0 ] && [ -e $MET/1 ] && [ -e $MET/2 ]; do sleep 0.01; done; exit 2";
    let job = shell(script).ranks(3).env("MET", met.path());
    let outcome = job.run().unwrap();
    assert_eq!((outcome.exit_code, outcome.message.as_str()), (2, ""));
    let script = "[ $WINDLASS_RANK = 1 ] && exit 2; exec sleep 60";
    let outcome = shell(script).ranks(3).run().unwrap();
    assert_eq!(outcome.exit_code, 2);
    assert!(
        outcome.message.starts_with("rank 1 ") && outcome.message.contains("status 2"),
        "{}",
        outcome.message
    );
}

#[test]
fn a_signal_gives_128_plus_its_number_and_its_name() {
    let _watchdog = watchdog();
    let outcome = shell("test $WINDLASS_RANK = 0 && kill -SEGV $$; sleep 100")
        .ranks(2)
        .run()
        .unwrap();
    assert_eq!(outcome.exit_code, 128 + 11);
    assert!(outcome.message.contains("SIGSEGV"), "{}", outcome.message);
    assert_gone(&outcome);
}

#[test]
fn survivors_that_ignore_sigterm_are_killed_with_their_children() {
    let _watchdog = watchdog();
    let script = "test $WINDLASS_RANK = 0 && { sleep 0.2; exit 3; }; trap '' TERM; sleep 100 & echo child $!; wait; sleep 100";
    let outcome = shell(script).ranks(3).run().unwrap();
    assert_eq!(outcome.exit_code, 3);
    assert!(
        outcome.ranks[1..]
            .iter()
            .all(|rank| rank.status == End::Signalled(9))
    );
    assert_gone(&outcome);
    for line in outcome.stdout_text().lines() {
        let child: i32 = line.strip_prefix("child ").unwrap().parse().unwrap();
        until("the children of ranks are gone", || !alive(child));
    }
}

#[test]
fn children_left_by_a_rank_do_not_hold_the_job() {
    let _watchdog = watchdog();
    let outcome = shell("sleep 100 & echo child $!").ranks(2).run().unwrap();
    assert_eq!(outcome.exit_code, 0);
    for line in outcome.stdout_text().lines() {
        let child: i32 = line.strip_prefix("child ").unwrap().parse().unwrap();
        until("the children of ranks are gone", || !alive(child));
    }
}

#[test]
fn a_time_out_gives_124() {
    let _watchdog = watchdog();
    let outcome = role("waits")
        .ranks(2)
        .timeout(Duration::from_millis(500))
        .run()
        .unwrap();
    assert_eq!(
        (outcome.exit_code, outcome.cause),
        (124, Some(Cause::TimedOut))
    );
    assert!(
        outcome.message.contains("time-out of 500ms"),
        "{}",
        outcome.message
    );
    assert_gone(&outcome);
}

#[test]
fn joining_and_ending_on_two_nodes_is_a_success() {
    let _watchdog = watchdog();
    let outcome = role("well").nodes(2).place("ve0:1,vh:1").run().unwrap();
    assert_eq!(
        outcome.exit_code,
        0,
        "{}\n{}",
        outcome.message,
        outcome.stderr_text()
    );
    assert_eq!(outcome.stdout_text().matches("joined").count(), 4);
    assert!(outcome.message.is_empty());
    assert_gone(&outcome);
}

#[test]
fn a_program_that_never_joins_is_an_ordinary_program() {
    let _watchdog = watchdog();
    let outcome = role("never-joins").ranks(2).run().unwrap();
    assert_eq!(outcome.exit_code, 0, "{}", outcome.message);
    assert_gone(&outcome);
}

#[test]
fn exit_0_without_ending_the_job_is_a_failure() {
    let _watchdog = watchdog();
    let outcome = role("unended-1").ranks(3).run().unwrap();
    assert_eq!(
        (outcome.exit_code, outcome.cause),
        (1, Some(Cause::Failure))
    );
    assert_eq!(outcome.ranks[1].fate, Fate::Unended);
    assert!(outcome.message.contains("rank 1"), "{}", outcome.message);
    assert!(
        outcome.message.contains("without ending its job"),
        "{}",
        outcome.message
    );
    assert_gone(&outcome);
}

#[test]
fn a_status_after_the_goodbye_still_counts() {
    let _watchdog = watchdog();
    let outcome = role("status-then-end").ranks(1).run().unwrap();
    assert_eq!(outcome.exit_code, 7);
}

#[test]
fn an_abort_gives_its_code_and_message() {
    let _watchdog = watchdog();
    for _ in 0..5 {
        let outcome = role("abort-2").ranks(3).run().unwrap();
        assert_eq!(
            (outcome.exit_code, outcome.cause),
            (42, Some(Cause::Abort { rank: 2, code: 42 }))
        );
        assert!(
            outcome.message.contains("the answer is wrong"),
            "{}",
            outcome.message
        );
        assert_gone(&outcome);
    }
}

#[test]
fn an_abort_counts_whatever_the_rank_exits_with() {
    let _watchdog = watchdog();
    for _ in 0..5 {
        let outcome = role("abort-then-exit-0").ranks(3).run().unwrap();
        assert_eq!(outcome.exit_code, 7, "{}", outcome.message);
        assert_gone(&outcome);
    }
}

#[test]
fn an_abort_on_another_node_is_heard() {
    let _watchdog = watchdog();
    let outcome = role("abort-2").ranks(3).nodes(3).run().unwrap();
    assert_eq!(outcome.exit_code, 42, "{}", outcome.message);
    assert_gone(&outcome);
}

#[test]
fn the_message_names_the_call_a_killed_rank_was_in() {
    let _watchdog = watchdog();
    let outcome = role("fence-then-die-1").ranks(3).nodes(2).run().unwrap();
    assert_eq!(outcome.exit_code, 137);
    assert_eq!(outcome.ranks[1].last_call, Some("fence"));
    assert!(outcome.message.contains("SIGKILL"), "{}", outcome.message);
    assert!(
        outcome.message.contains("last in fence"),
        "{}",
        outcome.message
    );
    assert_gone(&outcome);
}

#[test]
fn ranks_that_end_because_of_a_lost_peer_are_not_blamed() {
    let _watchdog = watchdog();
    for nodes in [1, 2].repeat(10) {
        let outcome = role("die-1-others-react")
            .ranks(4)
            .nodes(nodes)
            .run()
            .unwrap();
        assert_eq!(outcome.exit_code, 137, "{}", outcome.message);
        assert!(!outcome.message.contains("status 2"), "{}", outcome.message);
        assert_gone(&outcome);
    }
}

#[test]
fn a_killed_rank_ends_the_job_twenty_times() {
    let _watchdog = watchdog();
    for round in 0..20 {
        let job = role("waits").ranks(4).spawn().unwrap();
        // From before the rendezvous to long after it.
        std::thread::sleep(Duration::from_millis(3 * round));
        job.kill(2, 9).unwrap();
        let outcome = job.wait().unwrap();
        assert_eq!(outcome.exit_code, 137, "{}", outcome.message);
        assert!(outcome.message.contains("rank 2"), "{}", outcome.message);
        assert_gone(&outcome);
    }
}

#[test]
fn a_stopped_rank_is_not_dead_and_can_be_ended() {
    let _watchdog = watchdog();
    let job = role("waits").ranks(2).spawn().unwrap();
    until_running(&job);
    job.kill(1, 19).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(job.pids().iter().all(|&pid| alive(pid)));
    job.end();
    let outcome = job.wait().unwrap();
    assert_eq!(
        (outcome.exit_code, outcome.cause),
        (143, Some(Cause::Interrupted { signal: 15 }))
    );
    assert_gone(&outcome);
}

#[test]
fn a_dropped_job_is_ended() {
    let _watchdog = watchdog();
    let job = role("waits").ranks(2).spawn().unwrap();
    let pids = job.pids();
    drop(job);
    assert!(pids.into_iter().all(|pid| !alive(pid)));
}

#[test]
fn a_segment_left_by_a_dead_rank_is_swept_and_no_other() {
    let _watchdog = watchdog();
    let others = windlass_mem::sysv::find(0, 4096, 0o1000 | 0o600).unwrap();
    let outcome = role("leaves-segment").ranks(2).run().unwrap();
    assert_eq!(outcome.exit_code, 9);
    let text = outcome.stdout_text();
    let left = text
        .lines()
        .filter_map(|line| line.split_once("segment "))
        .map(|(_, id)| id.parse().unwrap());
    let left: Vec<i32> = left.collect();
    assert!(!left.is_empty());
    for id in left {
        assert!(
            windlass_mem::sysv::stat(id).is_err(),
            "segment {id} is left"
        );
    }
    assert!(
        windlass_mem::sysv::stat(others).is_ok(),
        "a segment of another process was removed"
    );
    windlass_mem::sysv::remove(others).unwrap();
}

#[test]
fn what_cannot_be_run_is_an_error() {
    let missing = Job::new("./no/such/program").run();
    assert!(matches!(missing, Err(Error::NoProgram(_))), "{missing:?}");
    let missing = Job::new("no-such-program-in-path").run();
    assert!(matches!(missing, Err(Error::NoProgram(_))), "{missing:?}");
    let directory = Job::new("/etc/passwd").run();
    assert!(
        matches!(directory, Err(Error::NotExecutable(_))),
        "{directory:?}"
    );
    let placed = Job::new("/bin/true").ranks(0).run();
    assert!(matches!(placed, Err(Error::Place(_))), "{placed:?}");
    // Executable, and its interpreter is missing: the rank cannot be started, and nothing stays.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("garbage");
    std::fs::write(&path, b"#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let garbage = Job::new(&path).ranks(3).run();
    assert!(
        matches!(garbage, Err(Error::Start { rank: 0, .. })),
        "{garbage:?}"
    );
}

#[test]
fn the_environment_of_a_rank_is_the_launchers_plus_what_is_asked_for() {
    let _watchdog = watchdog();
    let job = shell("echo $GREETING $PWD; test -n \"$PATH\"")
        .env("GREETING", "hello")
        .current_dir("/");
    let outcome = job.ranks(1).run().unwrap();
    assert_eq!(outcome.stdout_text(), "hello /\n");
    assert_eq!(outcome.exit_code, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_status_of_any_rank_is_reported(ranks in 1u32..5, victim in 0u32..5, status in 1i32..256) {
        let _watchdog = watchdog();
        let victim = victim % ranks;
        let script = format!("test $WINDLASS_RANK = {victim} && exit {status}; sleep 100");
        let outcome = shell(&script).ranks(ranks).run().unwrap();
        prop_assert_eq!(outcome.exit_code, status);
        assert_gone(&outcome);
    }
}

//! Teams: barriers, gathers and windows of a part of the job.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{Done, Report, Spec};
use windlass_node::control::{CONTEXTS, MAX_PART, MAX_PIECE, POSTED_BITS};
use windlass_runtime::{
    Error, Exposure, Job, Place, Placement, Reached, Route, Target, Team, WordName,
};

/// Runs `body` in every rank between `init` and `end`; every rank has to end well.
#[track_caller]
fn on_job(spec: Spec, body: impl FnOnce(&Arc<Job>) -> Done) {
    let whole = || {
        let job = Job::init()?;
        body(&job)?;
        job.end()?;
        Ok(())
    };
    spec.run(whole, Report::succeeded);
}

/// The placements under test: one node, a crowded one, ranks of every kind, several nodes.
#[track_caller]
fn everywhere(test: &'static str, body: impl Fn(&Arc<Job>) -> Done) {
    let spec = |case: &str| Spec::new(test).case(case);
    let all = [
        spec("two").ranks(2),
        spec("crowded").ranks(7),
        spec("mixed").ves(2).place("ve0:2,ve1:1,vh:2"),
        spec("nodes").nodes(3).place("vh:2"),
        spec("mixed nodes").nodes(2).ves(1).place("ve:1,vh:2"),
    ];
    for spec in all {
        on_job(spec, &body);
    }
}

fn put(target: &Target, offset: u64, bytes: &[u8]) -> Done {
    match &target.route {
        Route::Mapped(memory) => memory.write(offset as usize, bytes)?,
        Route::Posted(posted) => posted.put(offset, bytes)?,
    }
    Ok(())
}

fn words(exposure: &Exposure) -> Vec<u64> {
    let mut bytes = vec![0; exposure.bytes().len()];
    exposure
        .bytes()
        .read(0, &mut bytes)
        .expect("a rank reads its own memory");
    let words = bytes.chunks_exact(8);
    words
        .map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")))
        .collect()
}

/// What rank `job_rank` writes in window number `window`.
fn value(job_rank: u32, window: u64) -> u64 {
    (window << 16) + u64::from(job_rank) + 1
}

/// A window of the team, of which each rank has a word for every rank.
fn open(job: &Job, team: &Arc<Team>) -> Result<Exposure, Error> {
    team.expose(
        job.allocate(8 * team.size() as usize, 1),
        &[team.rank() as u8],
    )
}

/// Every rank writes to every other and counts in its words; then all is looked at.
fn exercise(exposure: &Exposure, window: u64) -> Done {
    let team = exposure.team();
    let (me, size) = (team.rank(), team.size());
    let mine = value(team.ranks()[me as usize], window);
    for (rank, target) in (0..).zip(&exposure.targets) {
        assert_eq!(target.note[..], [rank as u8]);
        put(target, 8 * u64::from(me), &mine.to_ne_bytes())?;
        exposure.word(WordName::Completed(rank))?.fetch_add(1)?;
        exposure
            .word(WordName::Posted(rank, me))?
            .fetch_or(1 << (me % POSTED_BITS))?;
        exposure.word(WordName::Lock(rank))?.fetch_add(3)?;
        exposure.word(WordName::Notified(rank, 63))?.fetch_add(1)?;
    }
    exposure.flush_all()?;
    exposure.barrier(window.is_multiple_of(2))?;
    let expected: Vec<u64> = team
        .ranks()
        .iter()
        .map(|&rank| value(rank, window))
        .collect();
    assert_eq!(words(exposure), expected, "window {window}");
    let own = |name| exposure.word(name)?.load();
    let count = u64::from(size);
    assert_eq!(own(WordName::Completed(me))?, count);
    assert_eq!(own(WordName::Lock(me))?, 3 * count);
    assert_eq!(own(WordName::Notified(me, 63))?, count);
    assert_eq!(
        own(WordName::Posted(me, 0))?.count_ones(),
        size.min(POSTED_BITS)
    );
    Ok(())
}

/// A whole life of a window of the team.
fn round_trip(job: &Job, team: &Arc<Team>, window: u64) -> Done {
    let exposure = open(job, team)?;
    exercise(&exposure, window)?;
    exposure.free()?;
    Ok(())
}

fn all_gather(team: &Team, salt: u64, len: impl Fn(u32) -> usize) -> Done {
    let part = |rank: u32| -> Vec<u8> {
        let mut byte = value(rank, salt);
        let step = move || {
            byte = byte.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (byte >> 56) as u8
        };
        std::iter::repeat_with(step).take(len(rank)).collect()
    };
    let me = team.ranks()[team.rank() as usize];
    let parts = team.all_gather(&part(me))?;
    let expected: Vec<Vec<u8>> = team.ranks().iter().map(|&rank| part(rank)).collect();
    assert!(
        parts == expected,
        "the parts of gather {salt} of {:?}",
        team.ranks()
    );
    Ok(())
}

#[test]
fn splits_and_splits_of_splits() {
    everywhere("splits_and_splits_of_splits", |job| {
        let world = job.team();
        assert_eq!((world.rank(), world.size()), (job.rank(), job.size()));
        let odd = job.rank() % 2;
        // By falling rank, and the even ones all with one key.
        let key = if odd == 1 { -i64::from(job.rank()) } else { 7 };
        let half = world
            .split(Some(odd), key)?
            .expect("every rank has a color");
        let mut ranks: Vec<u32> = (0..job.size()).filter(|rank| rank % 2 == odd).collect();
        if odd == 1 {
            ranks.reverse();
        }
        assert_eq!(half.ranks(), ranks);
        assert_eq!(half.job_rank(half.rank()), Some(job.rank()));
        assert_eq!(half.job_rank(half.size()), None);
        round_trip(job, &half, 1)?;
        all_gather(&half, 2, |rank| rank as usize)?;

        // Without the first of each half, and alone.
        let inner = half.split((half.rank() > 0).then_some(3), 0)?;
        assert_eq!(inner.is_none(), half.rank() == 0);
        if let Some(inner) = &inner {
            assert_eq!(inner.ranks(), &ranks[1..]);
            round_trip(job, inner, 3)?;
        }
        let alone = half.split(Some(job.rank()), 0)?.expect("a color");
        assert_eq!(alone.ranks(), [job.rank()]);
        round_trip(job, &alone, 4)?;
        alone.barrier()?;
        half.barrier()?;
        round_trip(job, &world, 5)?;
        Ok(())
    });
}

#[test]
fn subsets_in_any_order() {
    everywhere("subsets_in_any_order", |job| {
        let world = job.team();
        let reversed: Vec<u32> = (0..job.size()).rev().collect();
        let back = world.subset(&reversed)?.expect("all are listed");
        assert_eq!(back.ranks(), reversed);
        round_trip(job, &back, 1)?;

        // Two lists at once, and who is in none.
        let (low, high) = ([1, 0], [job.size() - 1]);
        let mine = if job.rank() < 2 { &low[..] } else { &high[..] };
        let part = world.subset(mine)?;
        if job.size() > 2 {
            let inside = job.rank() < 2 || job.rank() == job.size() - 1;
            assert_eq!(part.is_some(), inside);
        }
        if let Some(part) = &part {
            assert_eq!(part.ranks(), mine);
            round_trip(job, part, 2)?;
        }
        let none = world.subset(&[])?;
        assert!(none.is_none());

        // Ranks of a list are the team's, not the job's.
        let last = back.subset(&[0])?;
        assert_eq!(last.is_some(), job.rank() == job.size() - 1);
        Ok(())
    });
}

#[test]
fn bad_lists_are_refused_on_all_ranks_alike() {
    everywhere("bad_lists_are_refused_on_all_ranks_alike", |job| {
        let world = job.team();
        let bad: [(&[u32], &str); 2] = [(&[1, 0, 1], "twice"), (&[0, 99], "not in the team")];
        for (list, rule) in bad {
            // One rank is wrong, all are told.
            let list = if job.rank() == 1 { list } else { &[0, 1] };
            let error = world.subset(list).map(|_| ()).unwrap_err();
            match &error {
                Error::Listed { .. } => assert_eq!(job.rank(), 1),
                Error::Peer { rank: 1, .. } => assert_ne!(job.rank(), 1),
                other => panic!("{other:?}"),
            }
            assert!(error.to_string().contains(rule), "{error}");
        }
        let odd: &[u32] = if job.rank() == 0 { &[0, 1] } else { &[1, 0] };
        let error = world.subset(odd).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Disagree), "{error:?}");
        round_trip(job, &world, 1)
    });
}

/// Gathers and windows of teams that share ranks, one after the other without anything between.
#[test]
fn overlapping_teams_do_not_meet() {
    everywhere("overlapping_teams_do_not_meet", |job| {
        let world = job.team();
        let mut teams = vec![Arc::clone(&world)];
        // Every pair of neighbours in a ring, and all but one.
        for first in 0..job.size() {
            let second = (first + 1) % job.size();
            teams.extend(world.subset(&[second, first])?);
            let others: Vec<u32> = (0..job.size()).filter(|&rank| rank != first).collect();
            teams.extend(world.subset(&others)?);
        }
        for turn in 0..30 {
            for team in &teams {
                all_gather(team, turn, |rank| (rank as usize * 7 + turn as usize) % 50)?;
                if turn % 3 == 0 {
                    team.barrier()?;
                }
            }
        }
        let exposures = teams.iter().map(|team| open(job, team));
        let mut exposures = exposures.collect::<Result<Vec<_>, _>>()?;
        for window in 0..3 {
            for exposure in &exposures {
                for rank in 0..exposure.team().size() {
                    put(
                        &exposure.targets[rank as usize],
                        8 * u64::from(exposure.team().rank()),
                        &value(job.rank(), window).to_ne_bytes(),
                    )?;
                }
                exposure.flush_all()?;
                exposure.barrier(true)?;
                let written = exposure.team().ranks().iter();
                let written: Vec<u64> = written.map(|&rank| value(rank, window)).collect();
                assert_eq!(words(exposure), written);
                exposure.barrier(false)?;
            }
        }
        // Not in the order in which they were made.
        while let Some(exposure) = exposures.pop() {
            exposure.free()?;
        }
        for team in teams.iter().rev() {
            round_trip(job, team, 9)?;
        }
        Ok(())
    });
}

#[test]
fn long_parts_travel_in_pieces() {
    everywhere("long_parts_travel_in_pieces", |job| {
        let world = job.team();
        let others = world.split((job.rank() > 0).then_some(0), 0)?;
        let lens = [
            0,
            1,
            7,
            MAX_PIECE - 1,
            MAX_PIECE,
            MAX_PIECE + 1,
            3 * MAX_PIECE,
            MAX_PART,
        ];
        for (turn, len) in (0..).zip(lens) {
            // One long part, all long, falling lengths.
            let last = job.size() - 1;
            all_gather(&world, turn, |rank| if rank == last { len } else { 5 })?;
            all_gather(&world, turn, |_| len)?;
            if let Some(others) = &others {
                all_gather(others, turn, |rank| len / (rank as usize + 1))?;
            }
        }
        // Too long on one rank fails on all, and harms nothing.
        let len = if job.rank() == job.size() - 1 {
            MAX_PART + 1
        } else {
            3
        };
        let error = world.all_gather(&vec![1; len]).unwrap_err();
        assert!(matches!(error, Error::Node { .. }), "{error:?}");
        all_gather(&world, 99, |rank| rank as usize)
    });
}

/// Ranks that make different calls on a team: all of them fail, and the next calls work.
#[test]
fn different_calls_disagree() {
    everywhere("different_calls_disagree", |job| {
        let world = job.team();
        let call = |call: u32| match call {
            0 => world.barrier(),
            1 => world.all_gather(&[1; 2000]).map(drop),
            2 => world.split(Some(0), 0).map(drop),
            3 => world.expose(job.allocate(8, 1), &[]).map(drop),
            _ => world.expose_shared(8, 1, Placement::Apart, &[]).map(drop),
        };
        for one in 0..5 {
            for others in 0..5 {
                if one != others {
                    let met = call(if job.rank() == 1 { one } else { others });
                    assert!(
                        matches!(met, Err(Error::Disagree)),
                        "{one} {others}: {met:?}"
                    );
                }
            }
            all_gather(&world, 1, |_| 9)?;
        }
        round_trip(job, &world, 1)
    });
}

/// A creation that fails on one rank fails on all, takes no context and no memory.
#[test]
fn a_failed_creation_leaves_nothing() {
    for (case, nodes) in [("one node", 1), ("two nodes", 2)] {
        let spec = Spec::new("a_failed_creation_leaves_nothing")
            .case(case)
            .nodes(nodes)
            .place(if nodes == 1 { "vh:3" } else { "vh:2" });
        on_job(spec, |job| {
            let world = job.team();
            let pair = world.split((job.rank() != 1).then_some(0), 0)?;
            let before = job.allocate(8, 1)?.offset();
            let turns = if nodes == 1 { CONTEXTS + 10 } else { 200 };
            if let Some(pair) = &pair {
                for turn in 0..turns {
                    let odd = turn % pair.size() == pair.rank();
                    let region = if odd {
                        job.allocate(usize::MAX / 2, 1)
                    } else {
                        job.allocate(8, 1)
                    };
                    let error = pair.expose(region, &[]).map(|_| ()).unwrap_err();
                    match error {
                        Error::NoMemory { .. } => assert!(odd),
                        Error::Peer { rank, .. } => {
                            assert_eq!(rank, pair.ranks()[(turn % pair.size()) as usize]);
                        }
                        other => panic!("{other:?}"),
                    }
                }
                round_trip(job, pair, 1)?;
            }
            assert_eq!(job.allocate(8, 1)?.offset(), before, "memory came back");
            round_trip(job, &world, 2)
        });
    }
}

/// More windows and teams in the life of a job than there are contexts.
#[test]
fn contexts_are_used_again() {
    let spec = Spec::new("contexts_are_used_again");
    on_job(spec.clone().case("one node").ranks(2), |job| {
        let world = job.team();
        let back = world.subset(&[1, 0])?.expect("listed");
        for window in 0..u64::from(CONTEXTS) + 100 {
            round_trip(job, if window % 3 == 0 { &back } else { &world }, window)?;
        }
        for turn in 0..CONTEXTS + 100 {
            let team = world
                .split(Some(turn), i64::from(job.rank()))?
                .expect("a color");
            team.barrier()?;
        }
        Ok(())
    });
    // Left by ranks of both nodes at any time; the last one elsewhere as often as here.
    on_job(spec.case("two nodes").nodes(2).place("vh:2"), |job| {
        let world = job.team();
        for turn in 0..CONTEXTS / 2 + 50 {
            let team = world.split(Some(turn % 2), 0)?.expect("a color");
            // As many again, of which each node has but one rank.
            let pair = world.split(Some(job.rank() % 2), 0)?.expect("a color");
            if turn % 10 == 0 {
                all_gather(&team, 1, |_| 20)?;
                round_trip(job, &pair, u64::from(turn))?;
            }
        }
        Ok(())
    });
}

/// All contexts of a node in use: the next creation fails on all ranks, and works after a free.
#[test]
fn contexts_run_out_on_all_ranks_alike() {
    let spec = Spec::new("contexts_run_out_on_all_ranks_alike");
    on_job(spec.nodes(2).place("vh:1"), |job| {
        let world = job.team();
        // Those of this node only.
        let alone = world.split(Some(job.rank()), 0)?.expect("a color");
        let mut windows = Vec::new();
        if job.rank() == 1 {
            while let Ok(window) = open(job, &alone) {
                windows.push(window);
            }
            assert_eq!(windows.len() as u32, CONTEXTS - 2);
        }
        let error = open(job, &world).map(|_| ()).unwrap_err();
        match error {
            Error::Full { .. } => assert_eq!(job.rank(), 1),
            Error::Peer { rank: 1, .. } => assert_eq!(job.rank(), 0),
            other => panic!("{other:?}"),
        }
        let error = world.split(Some(0), 0).map(|_| ()).unwrap_err();
        assert!(matches!(
            error,
            Error::Full { .. } | Error::Peer { rank: 1, .. }
        ));
        if let Some(window) = windows.pop() {
            window.free()?;
        }
        round_trip(job, &world, 1)?;
        for window in windows {
            window.free()?;
        }
        Ok(())
    });
}

/// Both halves of a node make windows as fast as they can, each in its own time.
#[test]
fn disjoint_teams_at_the_same_time() {
    let spec = Spec::new("disjoint_teams_at_the_same_time");
    for (case, spec) in [
        ("one node", spec.clone().ranks(5)),
        ("two nodes", spec.nodes(2).place("vh:2")),
    ] {
        on_job(spec.case(case), |job| {
            let world = job.team();
            let odd = job.rank() % 2;
            let half = world.split(Some(odd), 0)?.expect("a color");
            let turns = if job.size() == 5 { 150 } else { 40 };
            let mut open_windows = std::collections::VecDeque::new();
            for window in 0..turns + u64::from(odd) * 20 {
                let exposure = open(job, &half)?;
                exercise(&exposure, window)?;
                open_windows.push_back(exposure);
                if open_windows.len() > 3 + odd as usize {
                    open_windows.pop_front().expect("there are some").free()?;
                }
            }
            for exposure in open_windows {
                exposure.free()?;
            }
            round_trip(job, &world, 1)
        });
    }
}

/// Two threads of each rank make windows on two teams, each thread in its own time.
#[test]
fn threads_use_different_teams() {
    everywhere("threads_use_different_teams", |job| {
        let world = job.team();
        let first = world.split(Some(0), 0)?.expect("a color");
        let second = world.split(Some(job.rank() / 2), 0)?.expect("a color");
        let busy = |team: &Arc<Team>, turns| {
            for window in 0..turns {
                round_trip(job, team, window).expect("a window");
                all_gather(team, window, |_| 30).expect("a gather");
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| busy(&first, 20));
            scope.spawn(|| busy(&second, 35));
        });
        Ok(())
    });
}

/// A segment that some ranks know already is told to those who do not.
#[test]
fn segments_become_known_team_by_team() {
    everywhere("segments_become_known_team_by_team", |job| {
        let world = job.team();
        let low = world.split((job.rank() < 2).then_some(0), 0)?;
        let later = world.split((job.rank() > 0).then_some(0), 0)?;
        for (turn, team) in (0..).zip([&low, &later, &low]) {
            if let Some(team) = team {
                round_trip(job, team, turn)?;
            }
        }
        round_trip(job, &world, 7)?;
        // Lent memory is told anew each time, and forgotten.
        for turn in 0..3 {
            for team in [&low, &later].into_iter().flatten() {
                let (region, loan) = job.lend(vec![0u64; team.size() as usize]);
                let exposure = team.expose(Ok(region), &[team.rank() as u8])?;
                exercise(&exposure, turn)?;
                let region = exposure.free()?.expect("this rank's");
                let bytes = region.bytes().clone();
                drop(region);
                let back = loan.take_back(bytes);
                assert!(back.is_ok(), "nobody has it any more");
            }
        }
        Ok(())
    });
}

/// Who drops a team has left it: the others are told by whom, and the job goes on.
#[test]
fn a_dropped_team_has_left() {
    everywhere("a_dropped_team_has_left", |job| {
        let world = job.team();
        let back: Vec<u32> = (0..job.size()).rev().collect();
        let team = world.subset(&back)?.expect("listed");
        team.barrier()?;
        if job.rank() == 1 {
            drop(team);
        } else {
            for _ in 0..3 {
                let error = team.barrier().unwrap_err();
                assert!(matches!(error, Error::Departed { rank: 1 }), "{error:?}");
            }
            let error = open(job, &team).map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Departed { rank: 1 }), "{error:?}");
        }
        world.barrier()?;
        round_trip(job, &world, 1)
    });
}

/// A window of a team that one rank drops: its team and other windows go on.
#[test]
fn a_dropped_window_of_a_team_has_left() {
    everywhere("a_dropped_window_of_a_team_has_left", |job| {
        let world = job.team();
        let team = world.split((job.rank() > 0).then_some(0), 0)?;
        if let Some(team) = &team {
            let exposure = open(job, team)?;
            exercise(&exposure, 1)?;
            if team.rank() == team.size() - 1 {
                drop(exposure);
            } else {
                let error = exposure.free().map(|_| ()).unwrap_err();
                let last = team.ranks()[team.size() as usize - 1];
                assert!(
                    matches!(error, Error::Departed { rank } if rank == last),
                    "{error:?}"
                );
            }
            round_trip(job, team, 2)?;
        }
        round_trip(job, &world, 3)
    });
}

/// One job is one failure domain: a wait of two ranks ends when a third dies.
#[test]
fn a_death_outside_the_team_ends_its_waits() {
    for nodes in [1, 2] {
        let spec = Spec::new("a_death_outside_the_team_ends_its_waits")
            .case(nodes.to_string())
            .nodes(nodes)
            .ranks(4);
        let body = || {
            let job = Job::init()?;
            let others = job.team().split((job.rank() != 1).then_some(0), 0)?;
            match (others, job.rank()) {
                (None, _) => std::process::abort(),
                (Some(others), 0) => {
                    let error = others.barrier().unwrap_err();
                    let lost = matches!(error, Error::PeerLost { rank: 1, .. });
                    assert!(lost || matches!(error, Error::JobLost(_)), "{error:?}");
                }
                // Never comes.
                _ => std::thread::sleep(Duration::from_secs(60)),
            }
            Ok(())
        };
        spec.run(body, |report| {
            let text = report.text();
            assert_eq!(report.outcome.exit_code, 128 + 6, "{text}");
            assert!(
                text.contains("rank 0") && !text.contains("panicked"),
                "{text}"
            );
        });
    }
}

/// Memory of this process alone, in bytes.
fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("there is one");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a number of kB") * 1024
}

/// Many ranks on few cpus make many windows; what each rank keeps for each peer is printed.
#[test]
fn a_hundred_windows_of_sixty_four_ranks() {
    let spec = Spec::new("a_hundred_windows_of_sixty_four_ranks");
    let body = || {
        let job = Job::init()?;
        let world = job.team();
        let half = world.split(Some(job.rank() / 32), 0)?.expect("a color");
        round_trip(&job, &world, 1)?;
        let before = own_memory();
        let mut windows = Vec::new();
        for window in 0..100 {
            let team = if window % 2 == 0 { &world } else { &half };
            windows.push(open(&job, team)?);
        }
        let peers: u64 = windows.iter().map(|w| u64::from(w.team().size())).sum();
        let kept = own_memory().saturating_sub(before) / peers;
        for (number, window) in (0..).zip(&windows) {
            let at = 8 * u64::from(window.team().rank());
            put(&window.targets[0], at, &[1; 8])?;
            window.barrier(number % 3 == 0)?;
            if window.team().rank() == 0 {
                assert!(
                    words(window)
                        .iter()
                        .all(|&word| word == u64::from_ne_bytes([1; 8]))
                );
            }
        }
        for window in windows {
            window.free()?;
        }
        if job.rank() == 0 {
            println!("kept={kept}");
        }
        drop((half, world));
        job.end()?;
        Ok(())
    };
    spec.ranks(64)
        .limit(Duration::from_secs(240))
        .run(body, |report| {
            report.succeeded();
            let kept = report.value("kept").expect("rank 0 tells it");
            println!("{kept} bytes of each rank for each peer in a window");
        });
}

/// The ranks that can share memory with this one: of one node, all on the host or on one VE.
fn sharing(job: &Arc<Job>) -> Result<Arc<Team>, Error> {
    let me = job.peer(job.rank()).expect("this rank");
    let place = match me.place {
        Place::Vh => 0,
        Place::Ve(n) => n + 1,
    };
    let team = job.team().split(Some(me.node << 8 | place), 0)?;
    Ok(team.expect("every rank has a color"))
}

/// A shared window in use: everybody sees every part by its own loads and stores.
fn exercise_shared(exposure: &Exposure, lens: &[usize], placement: Placement) -> Done {
    let team = exposure.team();
    let me = team.rank() as usize;
    assert_eq!(exposure.bytes().len(), lens[me]);
    let part = |rank: usize| match &exposure.targets[rank].route {
        Route::Mapped(bytes) => bytes,
        Route::Posted(_) => panic!("the part of rank {rank} is not mapped"),
    };
    let mut end = part(0).addr();
    for (rank, &len) in lens.iter().enumerate() {
        assert_eq!(part(rank).len(), len);
        let at = part(rank).addr();
        match placement {
            Placement::Contiguous => assert_eq!(at, end, "part {rank} follows"),
            Placement::Apart => assert!(at >= end && at.is_multiple_of(4096)),
        }
        end = at + len;
    }
    assert_eq!(exposure.bytes().addr(), part(me).addr());
    // New memory is zero. Everybody writes to the next rank's part, then looks at all.
    let all_are = |value: &dyn Fn(usize) -> u8| {
        for (rank, &len) in lens.iter().enumerate() {
            let mut seen = vec![0xee; len];
            part(rank).read(0, &mut seen).expect("it is mapped");
            assert!(seen.iter().all(|&byte| byte == value(rank)), "part {rank}");
        }
    };
    all_are(&|_| 0);
    exposure.barrier(true)?;
    let next = (me + 1) % lens.len();
    part(next).fill(0, lens[next], next as u8 + 1)?;
    exposure.barrier(true)?;
    all_are(&|rank| rank as u8 + 1);
    exposure.word(WordName::Lock(next as u32))?.fetch_add(1)?;
    exposure.barrier(true)?;
    assert_eq!(exposure.word(WordName::Lock(me as u32))?.load()?, 1);
    Ok(())
}

#[test]
fn shared_memory_of_those_who_can() {
    everywhere("shared_memory_of_those_who_can", |job| {
        let team = sharing(job)?;
        let lens: [&dyn Fn(usize) -> usize; 5] = [
            &|rank| 3 * rank + 1,
            &|_| 0,
            &|rank| if rank % 2 == 0 { 0 } else { 13 },
            &|_| 4096,
            &|rank| 100_000 / (rank + 1),
        ];
        for turn in 0..3 {
            let mut open_windows = Vec::new();
            for (note, len) in (0..).zip(lens) {
                let lens: Vec<usize> = (0..team.size() as usize).map(len).collect();
                for placement in [Placement::Contiguous, Placement::Apart] {
                    let mine = lens[team.rank() as usize];
                    let exposure = team.expose_shared(mine, 64, placement, &[note])?;
                    for target in &exposure.targets {
                        assert_eq!(target.note[..], [note]);
                    }
                    exercise_shared(&exposure, &lens, placement)?;
                    open_windows.push(exposure);
                }
            }
            for exposure in open_windows {
                let region = exposure.free()?;
                assert_eq!(region.is_some(), team.rank() == 0);
            }
            round_trip(job, &team, turn)?;
        }
        Ok(())
    });
}

/// Where one rank cannot map the memory all ranks fail alike, and nothing is left of it.
#[test]
fn shared_memory_is_refused_on_all_ranks_alike() {
    let spec = Spec::new("shared_memory_is_refused_on_all_ranks_alike");
    let far = spec.clone().case("nodes").nodes(2).place("vh:2");
    let apart = spec.case("places").ves(2).place("ve0:2,ve1:1,vh:1");
    for (spec, turns) in [(far, 50), (apart, CONTEXTS + 10)] {
        on_job(spec, |job| {
            let world = job.team();
            let before = job.allocate(8, 1)?.offset();
            for turn in 0..turns {
                let placement = [Placement::Contiguous, Placement::Apart][turn as usize % 2];
                let shared = world.expose_shared(100, 1, placement, &[]);
                let Err(Error::NotShared { rank: 2, why }) = shared.map(|_| ()) else {
                    panic!("rank 2 is the first that cannot");
                };
                assert!(
                    why.contains("only by") || why.contains("no mechanism"),
                    "{why}"
                );
            }
            // One rank asks for more than there is.
            let len = if job.rank() == 3 { usize::MAX } else { 8 };
            let error = world.expose_shared(len, 1, Placement::Contiguous, &[]);
            match error.map(|_| ()).unwrap_err() {
                Error::NoMemory { .. } | Error::Peer { rank: 0, .. } => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(job.allocate(8, 1)?.offset(), before, "memory came back");
            let team = sharing(job)?;
            let exposure = team.expose_shared(24, 1, Placement::Contiguous, &[])?;
            let lens = vec![24; team.size() as usize];
            exercise_shared(&exposure, &lens, Placement::Contiguous)?;
            exposure.free()?;
            round_trip(job, &world, 1)
        });
    }
}

fn store(reached: &Reached, offset: u64, bytes: &[u8]) -> Done {
    match &reached.route {
        Route::Mapped(memory) => memory.write(offset as usize, bytes)?,
        Route::Posted(posted) => {
            posted.put(offset, bytes)?;
            posted.flush()?;
        }
    }
    Ok(())
}

/// Memory that is offered and reached without a collective call, as it comes and goes.
#[test]
fn segments_are_offered_and_reached_one_by_one() {
    everywhere("segments_are_offered_and_reached_one_by_one", |job| {
        let world = job.team();
        let size = job.size() as usize;
        for turn in 0..3u64 {
            let (lent, loan) = job.lend(vec![0u64; size]);
            let arena = job.allocate(8 * size, 1)?;
            let mut told = Vec::new();
            for region in [&lent, &arena] {
                let offers = job.offer(region)?;
                assert_eq!(offers, job.offer(region)?, "exported once");
                told.extend(region.segment().id.to_le_bytes());
                told.extend((region.offset() as u64).to_le_bytes());
                told.extend((offers.len() as u32).to_le_bytes());
                told.extend(offers);
            }
            for (rank, told) in (0..).zip(world.all_gather(&told)?) {
                let mut rest = &told[..];
                let mut take = |count: usize| {
                    let (head, tail) = rest.split_at(count);
                    rest = tail;
                    head.to_vec()
                };
                for _ in 0..2 {
                    let id = u32::from_le_bytes(take(4).try_into().expect("4 bytes"));
                    let offset = u64::from_le_bytes(take(8).try_into().expect("8 bytes"));
                    let len = u32::from_le_bytes(take(4).try_into().expect("4 bytes"));
                    let offers = take(len as usize);
                    let reached = job.reach(rank, id, &offers)?;
                    // Known by now: what is offered is not looked at again.
                    job.reach(rank, id, b"rubbish")?;
                    let at = offset + 8 * u64::from(job.rank());
                    store(&reached, at, &value(job.rank(), turn).to_ne_bytes())?;
                    job.forget(rank, id);
                    for cut in 0..offers.len() {
                        refuses(job.reach(rank, id, &offers[..cut]));
                    }
                }
            }
            world.barrier()?;
            let expected: Vec<u64> = (0..job.size()).map(|rank| value(rank, turn)).collect();
            for region in [&lent, &arena] {
                let mut bytes = vec![0; 8 * size];
                region.bytes().read(0, &mut bytes)?;
                let words = bytes.chunks_exact(8);
                let words = words.map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")));
                assert_eq!(words.collect::<Vec<_>>(), expected);
            }
            let bytes = lent.bytes().clone();
            drop(lent);
            assert!(loan.take_back(bytes).is_ok(), "withdrawn with its region");
        }
        refuses(job.reach(job.size(), 0, &[0]));
        Ok(())
    });
}

#[track_caller]
fn refuses(reached: Result<Reached, Error>) {
    match reached.map(|_| ()) {
        Err(Error::Peer { .. } | Error::Unreachable { .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// Offers of random bytes are refused, whoever they are said to be from.
#[test]
fn rubbish_offers_are_refused() {
    everywhere("rubbish_offers_are_refused", |job| {
        let mut seed = u64::from(job.rank()) + 1;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let region = job.allocate(64, 1)?;
        let genuine = job.offer(&region)?;
        for turn in 0..2000 {
            let mut offers = genuine.clone();
            if turn % 2 == 0 {
                offers = (0..random() % 100).map(|_| random() as u8).collect();
            } else {
                for _ in 0..random() % 20 {
                    let at = random() as usize % offers.len();
                    offers[at] = random() as u8;
                }
            }
            let rank = random() as u32 % job.size();
            // What happens to be in order may be reached; nothing else may happen.
            match job.reach(rank, 1 << 20, &offers) {
                Ok(_) => job.forget(rank, 1 << 20),
                refused => refuses(refused),
            }
        }
        job.team().barrier()?;
        Ok(())
    });
}

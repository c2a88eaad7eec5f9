//! libfabric: our bindings against its own headers; jobs that ask for it, by a provider that is there and one that is not; a
//! peer that dies; a bad line between two network namespaces.
//!
//! The suite of all mechanisms is in `transports.rs`, random programs in `differential.rs`, deaths at every moment in `faults.rs`.

mod support;

use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::data::{Random, same_bytes};
use support::line::{Line, NETWORK, VARIABLE, enter};
use support::process::{die_after, wait_until};
use support::{Done, Spec, cc, ofi};
use windlass::{Rank, World};
use windlass_abi::ofi as abi;

/// A folder for marks between the ranks and the test.
const MARKS: &str = "WLTEST_MARKS";

/// One line of a layout: a name, and a size, an offset or a value.
struct Fact {
    c: String,
    name: String,
    number: u64,
}

macro_rules! layouts {
    ($($name:ident { $($field:ident),* } $size:ident;)*) => {
        /// The structures as we state them. `all`: the whole of it; `begin`: it goes on in C, and we do not look there.
        fn layouts() -> Vec<Fact> {
            let mut facts = Vec::new();
            $(
                let name = stringify!($name);
                if stringify!($size) == "all" {
                    facts.push(Fact {
                        c: format!("SIZE({name});"),
                        name: name.to_owned(),
                        number: size_of::<abi::$name>() as u64,
                    });
                }
                $({
                    let field = stringify!($field).trim_start_matches("r#");
                    facts.push(Fact {
                        c: format!("FIELD({name}, {field});"),
                        name: format!("{name}.{field}"),
                        number: offset_of!(abi::$name, $field) as u64,
                    });
                })*
            )*
            facts
        }
    };
}

layouts! {
    fi_info { next, caps, mode, addr_format, src_addrlen, dest_addrlen, src_addr, dest_addr, handle, tx_attr, rx_attr, ep_attr,
        domain_attr, fabric_attr, nic } all;
    fi_tx_attr { caps, mode, op_flags, msg_order, comp_order, inject_size, size, iov_limit, rma_iov_limit, tclass } all;
    fi_rx_attr { caps, mode, op_flags, msg_order, comp_order, total_buffered_recv, size, iov_limit } all;
    fi_ep_attr { r#type, protocol, protocol_version, max_msg_size, msg_prefix_size, max_order_raw_size, max_order_war_size,
        max_order_waw_size, mem_tag_format, tx_ctx_cnt, rx_ctx_cnt, auth_key_size, auth_key } all;
    // Later libraries append to it.
    fi_domain_attr { domain, name, threading, control_progress, data_progress, resource_mgmt, av_type, mr_mode, mr_key_size,
        cq_data_size, cq_cnt, ep_cnt, tx_ctx_cnt, rx_ctx_cnt, max_ep_tx_ctx, max_ep_rx_ctx, max_ep_stx_ctx, max_ep_srx_ctx,
        cntr_cnt, mr_iov_limit, caps, mode, auth_key, auth_key_size, max_err_data, mr_cnt, tclass } begin;
    fi_fabric_attr { fabric, name, prov_name, prov_version, api_version } all;
    fid { fclass, context, ops } all;
    fi_ops { size, close, bind, control, ops_open } begin;
    fid_fabric { fid, ops, api_version } all;
    fi_ops_fabric { size, domain, passive_ep, eq_open, wait_open, trywait } begin;
    fid_domain { fid, ops, mr } begin;
    fi_ops_domain { size, av_open, cq_open, endpoint } begin;
    fi_ops_mr { size, reg } begin;
    fid_mr { fid, mem_desc, key } all;
    fi_av_attr { r#type, rx_ctx_bits, count, ep_per_node, name, map_addr, flags } all;
    fid_av { fid, ops } begin;
    fi_ops_av { size, insert } begin;
    fi_cq_attr { size, flags, format, wait_obj, signaling_vector, wait_cond, wait_set } all;
    fid_cq { fid, ops } all;
    fi_ops_cq { size, read, readfrom, readerr } begin;
    // Later libraries append to it.
    fi_cq_err_entry { op_context, flags, len, buf, data, tag, olen, err, prov_errno, err_data, err_data_size } begin;
    fid_ep { fid, ops, cm, msg, rma } begin;
    fi_ops_cm { size, setname, getname } begin;
    iovec { iov_base, iov_len } all;
    fi_rma_iov { addr, len, key } all;
    fi_msg_rma { msg_iov, desc, iov_count, addr, rma_iov, rma_iov_count, context, data } all;
    fi_ops_rma { size, read, readv, readmsg, write, writev, writemsg } begin;
    fi_context2 { internal } all;
}

macro_rules! values {
    ($($name:ident),*) => {
        fn values() -> Vec<Fact> {
            vec![$(Fact {
                c: format!("VALUE({});", stringify!($name)),
                name: stringify!($name).to_owned(),
                number: abi::$name as u64,
            }),*]
        }
    };
}

values! {
    FI_RMA, FI_READ, FI_WRITE, FI_RECV, FI_SEND, FI_REMOTE_READ, FI_REMOTE_WRITE, FI_COMPLETION, FI_DELIVERY_COMPLETE,
    FI_LOCAL_COMM, FI_REMOTE_COMM, FI_SOURCE, FI_CONTEXT, FI_CONTEXT2, FI_MR_LOCAL, FI_MR_VIRT_ADDR, FI_MR_ALLOCATED,
    FI_MR_PROV_KEY, FI_MR_ENDPOINT, FI_EP_RDM, FI_THREAD_SAFE, FI_PROGRESS_AUTO, FI_PROGRESS_MANUAL, FI_CQ_FORMAT_CONTEXT,
    FI_WAIT_FD, FI_GETWAIT, FI_ENABLE, FI_EAVAIL, FI_ENOKEY
}

/// A program that is compiled against the installed headers says what we say.
#[test]
fn bindings_are_those_of_the_headers() {
    if !Path::new("/usr/include/rdma/fi_rma.h").exists() {
        return eprintln!(
            "bindings_are_those_of_the_headers: skipped: no rdma/fi_rma.h (Debian: libfabric-dev)"
        );
    }
    let mut facts = layouts();
    facts.extend(values());
    let folder = tempfile::tempdir().expect("a folder");
    let lines: String = facts.iter().map(|fact| fact.c.clone() + "\n").collect();
    std::fs::write(folder.path().join("ofi_layout.h"), lines).expect("written");
    let include = format!("-I{}", folder.path().display());
    let program = cc::compile("ofi_layout", &["tests/c/ofi_layout.c"], &[&include]);
    let ended = cc::run(Command::new(program));
    ended.succeeded();
    let mut ours = String::new();
    for fact in &facts {
        let _ = writeln!(ours, "{} {}", fact.name, fact.number);
    }
    let pairs = ours.lines().zip(ended.stdout.lines());
    let wrong: Vec<_> = pairs.filter(|(ours, theirs)| ours != theirs).collect();
    assert!(wrong.is_empty(), "ours and theirs: {wrong:#?}");
    assert_eq!(ended.stdout.lines().count(), facts.len());
}

/// Says why a test is left out.
fn skipped(test: &str) -> bool {
    let reason = ofi::missing();
    if let Some(reason) = &reason {
        eprintln!("{test}: skipped: {reason}");
    }
    reason.is_some()
}

fn spec(test: &'static str) -> Spec {
    Spec::new(test).nodes(2).place("vh:1")
}

/// A name that libfabric does not have ends the job with those it has.
#[test]
fn a_wrong_provider_is_told_with_those_there_are() {
    const TEST: &str = "a_wrong_provider_is_told_with_those_there_are";
    if skipped(TEST) {
        return;
    }
    let spec = spec(TEST).env("WINDLASS_OFI_PROVIDER", "carrier-pigeon");
    let body = || support::with_world(|_| Ok(()));
    spec.run(body, |report| {
        assert_ne!(report.outcome.exit_code, 0, "{}", report.text());
        let text = report.outcome.stderr_text();
        for word in ["WINDLASS_OFI_PROVIDER=\"carrier-pigeon\"", "accepted: tcp"] {
            assert!(text.contains(word), "{word}: {}", report.text());
        }
    });
}

/// `windlass info` says what the library is, and which providers the variable may name.
#[test]
fn the_command_says_which_providers_there_are() {
    const TEST: &str = "the_command_says_which_providers_there_are";
    if skipped(TEST) {
        return;
    }
    cc::package("windlass-launcher");
    let say = |words: &[&str], provider: Option<&str>| {
        let mut command = Command::new(cc::profile().join("windlass"));
        command.args(words).env_remove("WINDLASS_OFI_PROVIDER");
        command.envs(provider.map(|name| ("WINDLASS_OFI_PROVIDER", name)));
        if words[0] == "explain" {
            command.env("WINDLASS_ROUTE", "ofi");
        }
        let ended = cc::run(command);
        ended.succeeded();
        ended.stdout
    };
    let told = say(&["info"], None);
    let text = "not used; providers that WINDLASS_OFI_PROVIDER may name: ";
    let line = told.lines().find(|line| line.contains(text));
    let line = line.unwrap_or_else(|| panic!("{told}"));
    assert!(line.contains("version ") && line.contains("tcp"), "{line}");
    for (provider, text) in [
        ("tcp", "jobs of several nodes, provider tcp: software"),
        ("pigeon", "pigeon is none of its providers"),
    ] {
        let told = say(&["info"], Some(provider));
        assert!(told.contains(text), "{told}");
    }
    let told = say(&["explain", "-n", "2", "--nodes", "2"], Some("tcp"));
    let text = "ofi goes by the provider tcp of libfabric (WINDLASS_OFI_PROVIDER); updates";
    assert!(told.contains(text), "{told}");
}

/// Where nobody asks for it, it is not loaded, and the reason says how to ask.
#[test]
fn it_is_loaded_where_it_is_asked_for() {
    const TEST: &str = "it_is_loaded_where_it_is_asked_for";
    if skipped(TEST) {
        return;
    }
    for (case, provider) in [("unasked", None), ("asked", Some("tcp"))] {
        let mut spec = spec(TEST).case(case);
        if let Some(provider) = provider {
            spec = spec.env("WINDLASS_OFI_PROVIDER", provider);
        }
        spec.world(|world| {
            let window = world.allocate::<u8>(10)?;
            let other = Rank(1 - world.rank().0);
            let route = window.routes().find(|route| route.target == other);
            let route = route.expect("every target has a route");
            let maps = std::fs::read_to_string("/proc/self/maps")?;
            assert_eq!(maps.contains("/libfabric.so"), provider.is_some());
            // Debian's brings a library that catches SIGTERM and others.
            let status = std::fs::read_to_string("/proc/self/status")?;
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = u64::from_str_radix(caught.ok_or("no line of signals")?.trim(), 16)?;
            assert_eq!(caught >> (15 - 1) & 1, 0, "SIGTERM is caught: {status}");
            let why = format!("{:?}", route.rejected);
            let word = match provider {
                None => "WINDLASS_OFI_PROVIDER asks for it",
                Some(_) => "works, but udapl is cheaper",
            };
            assert!(why.contains(word), "{} {why}", route.mechanism);
            window.free()?;
            Ok(())
        });
    }
}

/// Every rank puts to and gets from every other at once; twice as many ranks as most machines for tests have cpus.
#[test]
fn more_ranks_than_cpus() {
    const TEST: &str = "more_ranks_than_cpus";
    if skipped(TEST) {
        return;
    }
    let spec = spec(TEST).nodes(4).env("WINDLASS_ROUTE", "ofi");
    spec.world(|world| {
        const PART: usize = 70_000;
        let (me, size) = (world.rank().0 as usize, world.size() as usize);
        let mut window = world.allocate::<u8>(PART * size)?;
        for round in 0..5 {
            let bytes = |from: usize, to: usize| {
                Random::new((round * 100 + from * 10 + to) as u64).bytes(PART)
            };
            let mut epoch = window.fence()?;
            for to in 0..size {
                epoch.put(&bytes(me, to), Rank(to as u32), me * PART)?;
            }
            epoch = epoch.next()?;
            for from in 0..size {
                let mut back = vec![0; PART];
                epoch.get(&mut back, Rank(from as u32), me * PART)?;
                same_bytes(&back, &bytes(me, from), "what this rank has put");
                let mine = &epoch.local().to_vec()[from * PART..][..PART];
                same_bytes(mine, &bytes(from, me), "what was put here");
            }
            epoch.end()?;
        }
        window.free()?;
        Ok(())
    });
}

/// The peer dies while puts and gets are on their way: all end with an error that names it, and so does what comes after.
#[test]
fn a_peer_that_dies_is_lost_to_every_transfer() {
    const TEST: &str = "a_peer_that_dies_is_lost_to_every_transfer";
    if skipped(TEST) {
        return;
    }
    let body = || -> Done {
        let world = windlass::init()?;
        let mut window = world.allocate::<u8>(8 << 20)?;
        let epoch = window.lock_all()?;
        world.barrier()?;
        if world.rank() == Rank(1) {
            die_after(Duration::from_millis(30));
            std::thread::sleep(Duration::from_secs(60));
        }
        let lost =
            |error: &windlass::Error| matches!(error, windlass::Error::PeerLost { rank: 1, .. });
        let mut puts = 0u32;
        let error = loop {
            let requests: Vec<_> = (0..4)
                .map(|_| epoch.rput(world.buffer::<u8>(1 << 20)?, Rank(1), 0))
                .collect();
            let ended: Vec<_> = requests
                .into_iter()
                .map(|put| put.and_then(|put| put.wait()))
                .collect();
            puts += 1;
            let failed: Vec<_> = ended.into_iter().filter_map(Result::err).collect();
            if let Some(first) = failed.into_iter().next() {
                break first;
            }
            assert!(puts < 1_000_000, "the peer does not die");
        };
        let put = epoch
            .put(&[1; 100], Rank(1), 0)
            .and_then(|()| epoch.flush(Rank(1)));
        let got = epoch.get(&mut [0; 100], Rank(1), 0);
        let later = [
            put.expect_err("a put to the dead"),
            got.expect_err("a get from the dead"),
        ];
        println!(
            "LOST={} LATER={} {error} {later:?}",
            lost(&error),
            later.iter().all(lost)
        );
        std::thread::sleep(Duration::from_secs(60));
        Ok(())
    };
    let spec = spec(TEST).env("WINDLASS_ROUTE", "ofi").stubborn();
    spec.run(body, |report| {
        assert_eq!(
            report.value("LOST").as_deref(),
            Some("true"),
            "{}",
            report.text()
        );
        assert_eq!(
            report.value("LATER").as_deref(),
            Some("true"),
            "{}",
            report.text()
        );
    });
}

/// Random puts and gets between both ends of the line.
fn operate(world: &World) -> Done {
    const PART: usize = 100_000;
    let me = world.rank().0;
    let other = Rank(1 - me);
    let mut window = world.allocate::<u8>(PART)?;
    let route = window.routes().find(|route| route.target == other);
    assert_eq!(route.map(|route| route.mechanism), Some("ofi"));
    let mut random = Random::new(u64::from(me) + 3);
    let mut model = vec![0; PART];
    let epoch = window.lock_all()?;
    for number in 0..3000 {
        let len = 1 + random.below(if number % 10 == 0 { 9000 } else { 64 });
        let at = random.below(PART - len);
        let bytes = random.bytes(len);
        epoch.put(&bytes, other, at)?;
        model[at..at + len].copy_from_slice(&bytes);
        // Puts have no order until a flush.
        if number % 20 == 0 {
            epoch.flush(other)?;
            let mut found = vec![0; PART];
            epoch.get(&mut found, other, 0)?;
            same_bytes(&found, &model, &format!("after put {number}"));
        }
    }
    epoch.end()?;
    window.free()?;
    Ok(())
}

#[test]
fn a_line_that_loses_packets_loses_no_put() {
    const TEST: &str = "a_line_that_loses_packets_loses_no_put";
    if support::is_rank() {
        let body = || {
            enter(support::my_rank())?;
            support::with_world(operate)
        };
        return Spec::new(TEST).run(body, |_| ());
    }
    if skipped(TEST) {
        return;
    }
    let line = match Line::new("o", Duration::from_millis(1), 100) {
        Ok(line) => line,
        Err(reason) => return eprintln!("{TEST}: skipped: {reason}"),
    };
    let spec = spec(TEST)
        .env("WINDLASS_ROUTE", "ofi")
        .env(VARIABLE, line.name())
        .env("WINDLASS_NETWORK", NETWORK)
        .limit(Duration::from_secs(240));
    spec.run(|| Ok(()), support::Report::succeeded);
    let (carried, lost) = line.counts();
    println!("{carried} packets carried, {lost} lost");
    assert!(lost > 0, "of {carried} packets none was lost");
}

/// Puts and flushes until one fails.
fn until_it_fails() -> Done {
    enter(support::my_rank())?;
    let world = windlass::init()?;
    let other = Rank(1 - world.rank().0);
    let mut window = world.allocate::<u64>(10)?;
    let epoch = window.lock_all()?;
    let mut good = Instant::now();
    let mut count = 0;
    let error = loop {
        let put = epoch.put(&[count], other, 0);
        if let Err(error) = put.and_then(|()| epoch.flush(other)) {
            break error;
        }
        good = Instant::now();
        count += 1;
        if count == 100 {
            let folder = std::env::var(MARKS)?;
            std::fs::write(Path::new(&folder).join(other.0.to_string()), [])?;
        }
    };
    let lost = matches!(error, windlass::Error::PeerLost { .. });
    println!(
        "LOST{}={lost} after {:?}: {error}",
        world.rank().0,
        good.elapsed()
    );
    std::thread::sleep(Duration::from_secs(5));
    Err(error.into())
}

/// A line that is cut for good is an error on both sides, in seconds.
#[test]
fn a_line_that_is_cut_loses_the_peer() {
    const TEST: &str = "a_line_that_is_cut_loses_the_peer";
    if support::is_rank() {
        return Spec::new(TEST).run(until_it_fails, |_| ());
    }
    if skipped(TEST) {
        return;
    }
    let line = match Line::new("q", Duration::from_millis(1), 0) {
        Ok(line) => line,
        Err(reason) => return eprintln!("{TEST}: skipped: {reason}"),
    };
    let marks = tempfile::tempdir().expect("a folder");
    let folder = marks.path();
    let spec = spec(TEST)
        .env("WINDLASS_ROUTE", "ofi")
        .env(VARIABLE, line.name())
        .env("WINDLASS_NETWORK", NETWORK)
        .env(MARKS, folder.to_str().expect("a path of text"));
    let cut = |_: &windlass_launcher::Running| {
        let both = || ["0", "1"].iter().all(|rank| folder.join(rank).exists());
        assert!(wait_until(Duration::from_secs(120), both).is_some());
        line.cut(true);
    };
    let check = |report: &support::Report| {
        for rank in 0..2 {
            let lost = report.value(&format!("LOST{rank}"));
            assert_eq!(lost.as_deref(), Some("true"), "{}", report.text());
        }
        println!("{}", report.outcome.stdout_text());
    };
    spec.run_during(|| Ok(()), cut, check);
}

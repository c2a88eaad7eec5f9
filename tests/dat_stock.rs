//! Debian's own `dtest`, `dtestcm`, `dtestsrq` and `dapltest` (package dapl2-utils), unmodified, over stock libdat2 and our provider plug-in
//! (udapl.md sections 3 and 7): between two processes on loopback, and between two network namespaces.
//!
//! `cargo test --test dat_stock -- --show-output` prints the list of what passes.

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use support::cc::{self, Ended};
use support::dat::{self, Config, NAME};

/// Where the servers of the tools wait for their clients.
const DTEST_PORT: u16 = 15828;
const DAPLTEST_PORT: u16 = 62000;
const DTESTSRQ_PORT: u16 = 45248;

/// What every test here needs.
const TOOLS: [&str; 3] = [
    "/usr/bin/dtest",
    "/usr/bin/dapltest",
    "/usr/lib/x86_64-linux-gnu/libdat2.so.2",
];

/// The two places a test's programs run at: how a command starts there, and the server's address.
struct Places {
    server: Config,
    client: Config,
    /// Words before the program.
    at: [Vec<String>; 2],
    address: &'static str,
    name: &'static str,
    _namespaces: Vec<Namespace>,
}

impl Places {
    /// In a namespace of its own where one can be made: the tools' ports are among those that the kernel gives to
    /// connections, and one of another program that lingers there keeps them from it.
    fn loopback() -> Places {
        let namespace = Namespace::make("l").inspect_err(|why| println!("{why}"));
        let words = namespace.as_ref().map(Namespace::words).unwrap_or_default();
        Places {
            server: Config::new("127.0.0.1", false),
            client: Config::new("lo", false),
            at: [words.clone(), words],
            address: "127.0.0.1",
            name: "loopback",
            _namespaces: namespace.into_iter().collect(),
        }
    }

    fn command(&self, which: usize, program: &str, words: &str) -> Command {
        let config = [&self.server, &self.client][which];
        let mut all = self.at[which].iter().map(String::as_str).chain([program]);
        let mut command = config.command(all.next().expect("there is a program"));
        command.args(all).args(words.split_whitespace());
        command
    }

    /// `dtest` on both sides with these options.
    #[track_caller]
    fn dtest(&self, options: &str) {
        let words = format!("-P {NAME} -h {} {options}", self.address);
        let mut tries = 0..5;
        let (served, clients) = loop {
            let server = self.command(0, TOOLS[0], &format!("-P {NAME} {options}"));
            let client = self.command(1, TOOLS[0], &words);
            let (served, clients) = dat::serve(server, DTEST_PORT, vec![client]);
            // The server tells its address before it serves there: a client that is quicker finds nobody.
            let client = &clients[0].stdout;
            let quick = client.contains("FAILED") && !client.contains("CONNECTED");
            if !(quick && tries.next().is_some()) {
                break (served, clients);
            }
        };
        for side in [&served, &clients[0]] {
            side.succeeded();
            let passed = side.stdout.contains("DAPL Test Complete. PASSED");
            assert!(passed, "{served:#?}\n{clients:#?}");
        }
        println!("passes over {}: dtest {options}", self.name);
    }

    /// A `dapltest` server, and these tests one after the other; the last lets it quit.
    #[track_caller]
    fn dapltest(&self, tests: &[&str]) {
        let server = self.command(0, TOOLS[1], &format!("-T S -D {NAME}"));
        let client = |test: &&str| {
            // The operations come last.
            let (mode, rest) = test.split_at(4);
            let words = format!("{mode} -D {NAME} -s {}{rest}", self.address);
            self.command(1, TOOLS[1], &words)
        };
        let clients = tests.iter().chain(&["-T Q"]).map(client).collect();
        let (served, clients) = dat::serve(server, DAPLTEST_PORT, clients);
        served.succeeded();
        for (test, ended) in tests.iter().chain(&["-T Q"]).zip(&clients) {
            assert!(healthy(ended), "{test}: {ended:#?}\n{served:#?}");
            println!("passes over {}: dapltest {test}", self.name);
        }
        assert!(
            healthy(&served) || served.stdout.contains("Exiting"),
            "{served:#?}"
        );
        assert!(!complains(&served), "{served:#?}");
    }
}

/// `dapltest` ends with 0 whatever happened: its words tell.
fn complains(ended: &Ended) -> bool {
    let words = ended.stdout.to_lowercase() + &ended.stderr.to_lowercase();
    ["fail", "error", "mismatch", "syntax"]
        .into_iter()
        .any(|word| words.contains(word))
}

fn healthy(ended: &Ended) -> bool {
    let finished = ended.stdout.contains("End of Work -- Client Exiting");
    ended.status.success() && finished && !complains(ended)
}

/// Every mode of `dapltest` with a server, and each kind of transfer.
const TRANSFERS: [&str; 10] = [
    "-T T -i 100 client SR 4096 2 server SR 4096 2",
    "-T T -V -t 2 -w 4 -i 200 client RW 4096 1 server RW 2048 4 client SR 1024 4 server SR 4096 2 \
     client SR 1024 3 -f server SR 2048 1 -f",
    "-T T -V -P -i 100 client RR 4096 1 server RR 2048 2 client SR 1024 4 server SR 4096 2",
    "-T T -i 20 client SR 1048576 1 server SR 1048576 1 client RW 1048576 4 server RR 1048576 1",
    "-T T -t 8 -w 2 -i 50 client SR 256 server SR 256",
    "-T P -i 1000 RW 4096 2",
    "-T P -i 1000 -m p RW 64 1",
    "-T P -i 100 -p 16 RW 1048576 1",
    "-T P -i 1000 RR 4096 2",
    "-T P -i 1000 -m p -p 4 RR 64 1",
];

/// Whether the tools are there; if not, the reason is printed.
fn there() -> bool {
    match dat::absent(&TOOLS) {
        None => true,
        Some(why) => {
            println!("skipped: {why}");
            false
        }
    }
}

#[test]
fn dtest_over_loopback() {
    if !there() {
        return;
    }
    let places = Places::loopback();
    for options in [
        "",
        "-b 4096 -B 10",
        "-b 64 -B 1",
        "-p",
        "-c",
        "-b 1048576 -B 10 -p",
    ] {
        places.dtest(options);
    }
}

#[test]
fn dtestsrq_over_loopback() {
    const TOOL: &str = "/usr/bin/dtestsrq";
    if !there() {
        return;
    }
    let places = Places::loopback();
    for options in ["-b 4096", "-b 256 -c 8 -B 4 -t 5", "-b 4096 -c 4 -S 0"] {
        let words = format!("-P {NAME} {options}");
        let server = places.command(0, TOOL, &words);
        let client = places.command(1, TOOL, &format!("{words} -h 127.0.0.1"));
        let (served, clients) = dat::serve(server, DTESTSRQ_PORT, vec![client]);
        for side in [&served, &clients[0]] {
            side.succeeded();
            assert!(!complains(side), "{side:#?}");
        }
        println!("passes over loopback: dtestsrq {options}");
    }
}

/// Connections in bursts of a hundred, more than may prove themselves at one time.
#[test]
fn dtestcm_over_loopback() {
    const TOOL: &str = "/usr/bin/dtestcm";
    if !there() {
        return;
    }
    let places = Places::loopback();
    let words = format!("-P {NAME}");
    let server = places.command(0, TOOL, &words);
    let client = places.command(1, TOOL, &format!("{words} -h 127.0.0.1"));
    let (served, clients) = dat::serve(server, DTEST_PORT, vec![client]);
    for side in [&served, &clients[0]] {
        side.succeeded();
        let complete = side.stdout.contains("DAPL Connection Test Complete.");
        assert!(complete, "{side:#?}");
    }
    println!("passes over loopback: dtestcm");
}

#[test]
fn dapltest_over_loopback() {
    if there() {
        Places::loopback().dapltest(&TRANSFERS);
    }
}

/// The limit tests exhaust what one process may have; at most `-m` of each.
#[test]
fn dapltest_limits() {
    if !there() {
        return;
    }
    let words = format!("-T L -D {NAME} -w 16 -m 1000");
    let ended = cc::run(Places::loopback().command(0, TOOLS[1], &words));
    ended.succeeded();
    for created in [
        "IAs opened: 1000",
        "PZs created: 1000",
        "CNOs created: 1000",
        "EVDs created: 1000",
        "EPs created: 1000",
        "RSPs created: 1000",
        "PSPs created: 1000",
        "LMRs created: 1000",
        // As many as the endpoint was made for, then it is told.
        "recv buffers posted per EP: 256",
        "dat_ep_post_recv fails: DAT_INSUFFICIENT_RESOURCES DAT_RESOURCE_MEMORY",
        "LMR of 0x40000000 bytes OK",
    ] {
        assert!(ended.stdout.contains(created), "no '{created}': {ended:#?}");
        println!("passes: dapltest -T L -w 16 -m 1000: {created}");
    }
}

/// A network namespace whose loopback device is up; gone with this value.
struct Namespace {
    name: String,
}

const ADDRESSES: [&str; 2] = ["10.99.0.1", "10.99.0.2"];

fn ip(words: &str) -> Result<(), String> {
    let _alone = support::leaks::alone();
    let done = Command::new("ip").args(words.split_whitespace()).output();
    let done = done.map_err(|error| format!("ip (package iproute2): {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&done.stderr);
    Err(format!("ip {words}: {}", why.trim()))
}

impl Namespace {
    fn make(kind: &str) -> Result<Namespace, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("wltest-{}-{made}{kind}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let namespace = Namespace { name };
        ip(&format!("-n {} link set lo up", namespace.name))?;
        Ok(namespace)
    }

    /// Two that are joined by a pair of virtual Ethernet devices.
    fn pair() -> Result<[Namespace; 2], String> {
        let both = [Namespace::make("a")?, Namespace::make("b")?];
        let [a, b] = both.each_ref().map(|namespace| &namespace.name);
        ip(&format!(
            "-n {a} link add veth0 type veth peer name veth0 netns {b}"
        ))?;
        for (name, address) in [a, b].into_iter().zip(ADDRESSES) {
            ip(&format!("-n {name} addr add {address}/24 dev veth0"))?;
            ip(&format!("-n {name} link set veth0 up"))?;
        }
        Ok(both)
    }

    /// What comes before a program that is to run there.
    fn words(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name]
            .map(str::to_owned)
            .to_vec()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.name));
    }
}

#[test]
fn the_tools_between_network_namespaces() {
    if !there() {
        return;
    }
    let namespaces = match Namespace::pair() {
        Ok(namespaces) => namespaces,
        Err(why) => {
            println!("skipped: network namespaces cannot be made here: {why}");
            return;
        }
    };
    let server = Config::new(ADDRESSES[0], true);
    let places = Places {
        client: server.beside("veth0"),
        server,
        at: namespaces.each_ref().map(Namespace::words),
        address: ADDRESSES[0],
        name: "network namespaces",
        _namespaces: namespaces.into(),
    };
    for options in ["", "-b 4096 -B 10"] {
        places.dtest(options);
    }
    places.dapltest(&TRANSFERS);
}

/// An adapter that other hosts could reach is not opened without a secret, and the line says what to add.
#[test]
fn an_open_adapter_without_a_secret_is_refused() {
    if !there() {
        return;
    }
    let config = Config::new("192.0.2.1", false);
    let mut command = config.command(TOOLS[0]);
    command.args(["-P", NAME]);
    let ended = cc::run(command);
    let told = ended.stderr.contains("add 'secret=FILE'");
    let refused = ended.stderr.contains("DAT_PROVIDER_NOT_FOUND");
    assert!(told && refused, "{ended:#?}");
}

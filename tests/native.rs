//! `windlass-native`: a libveo.so loaded at run time. There is no card here; the library is our own, whose VE processes are
//! processes of this machine.
//!
//! Each body runs in a process of its own, because it is the environment that chooses the library.
#![allow(unsafe_code)]

mod support;

use std::path::Path;
use std::process::Command;

use support::cc;
use windlass_native::Error;
use windlass_native::veo::{Registration, Veo};

/// Which body a process of these tests is to run.
const BODY: &str = "WLTEST_NATIVE";
/// The VE library, for a body.
const VE_LIBRARY: &str = "WLTEST_VE_LIBRARY";

const PAGE: usize = 64 << 20;

/// Not a test of its own: the process of the tests below.
#[test]
fn native_program() {
    match std::env::var(BODY).as_deref() {
        Err(_) => {}
        Ok("process") => process(),
        Ok("shared") => shared(),
        Ok("refused") => {
            // The error and its cause, for the test that started this.
            let error = Veo::from_env().expect_err("the library is refused");
            println!("refused: {error}");
        }
        Ok("emulated") => assert!(Veo::from_env().expect("nothing is loaded").is_none()),
        Ok(other) => panic!("no body {other}"),
    }
}

/// Runs a body with these variables; what it printed.
#[track_caller]
fn run(body: &str, variables: &[(&str, &Path)]) -> String {
    let mut command = Command::new(std::env::current_exe().expect("a process knows its program"));
    command.args(["--exact", "native_program", "--nocapture"]);
    for name in [
        "WINDLASS_VE",
        "WINDLASS_LIBVEO",
        "VE_NODE_NUMBER",
        "_VENODELIST",
    ] {
        command.env_remove(name);
    }
    command.env(BODY, body).envs(variables.iter().copied());
    let ended = cc::run(command);
    ended.succeeded();
    assert!(ended.stdout.contains("1 passed"), "{ended:#?}");
    ended.stdout
}

fn native(library: &Path) -> [(&'static str, &Path); 2] {
    [
        ("WINDLASS_VE", Path::new("native")),
        ("WINDLASS_LIBVEO", library),
    ]
}

fn run_native(body: &str) {
    for package in ["windlass-veo", "windlass-sysve", "windlass-launcher"] {
        cc::package(package);
    }
    let ours = cc::profile().join("libveo.so.1");
    let name = format!("libveo_ve_{body}.so");
    let on_ve = cc::compile(&name, &["tests/c/veo_ve.c"], &["-shared", "-fPIC"]);
    let mut variables = native(&ours).to_vec();
    variables.push((VE_LIBRARY, &on_ve));
    run(body, &variables);
}

fn loaded() -> std::sync::Arc<Veo> {
    let veo = Veo::from_env()
        .expect("it can be loaded")
        .expect("it is asked for");
    assert_eq!(veo.version(), 16);
    assert!(
        veo.version_text().starts_with("windlass"),
        "{}",
        veo.version_text()
    );
    veo
}

/// What the transports need of a process: memory that is written and read, functions, an end.
fn process() {
    let veo = loaded();
    let process = veo.create(Some(1)).expect("there is a VE 1");
    let library = std::env::var_os(VE_LIBRARY).expect("the test names it");
    let library = process.load(Path::new(&library)).expect("it is there");
    let call = |name: &str, arguments: &[u64]| {
        let function = process
            .function(library, name)
            .expect("it has this function");
        // SAFETY: functions of tests/c/veo_ve.c, with the arguments they take.
        unsafe { function.call(arguments) }
    };
    assert_eq!(call("node", &[]).expect("it returns"), 1);
    assert!(process.function(library, "not_there").is_err());
    assert!(process.load(Path::new("/does/not/exist.so")).is_err());

    let memory = process.alloc(100_000).expect("there is memory");
    assert_eq!(
        (memory.len(), memory.node(), memory.is_empty()),
        (100_000, 1, false)
    );
    assert_ne!(memory.pid(), std::process::id() as i32);
    for (offset, len) in [(0, 0), (0, 1), (3, 99_997), (99_999, 1), (100_000, 0)] {
        let data: Vec<u8> = (0..len).map(|at| (at * 7 + offset) as u8).collect();
        memory.write(offset, &data).expect("the range is inside");
        let mut back = vec![0; len];
        memory.read(offset, &mut back).expect("the range is inside");
        assert_eq!(back, data);
    }
    let sum = call("sum_bytes", &[memory.vemva() + 3, 1000]).expect("it returns");
    let mut bytes = [0; 1000];
    memory.read(3, &mut bytes).expect("the range is inside");
    assert_eq!(sum, bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    for (offset, len) in [(0, 100_001), (100_000, 1), (usize::MAX, 2)] {
        let refused = memory.read(offset, &mut vec![0; len]);
        assert!(
            matches!(refused, Err(Error::OutOfRange { .. })),
            "{refused:?}"
        );
    }
    let too_much = process.alloc(1 << 40).expect_err("no card has this much");
    assert!(matches!(too_much, Error::NoMemory { .. }), "{too_much:?}");
    assert!(veo.create(Some(8)).is_err(), "eight VEs at most");

    // The end of the process is an error of every call, and of nothing else.
    assert!(call("touch_null", &[]).is_err());
    assert!(memory.write(0, b"x").is_err());
    assert!(process.alloc(1).is_err());
    let another = veo.create(None).expect("VE 0");
    another.alloc(1).expect("there is memory");
}

/// VESHM and DMA between two VEs, by the library.
fn shared() {
    let veo = loaded();
    let owner = veo.create(Some(0)).expect("VE 0");
    let user = veo.create(Some(1)).expect("VE 1");
    let area = owner.alloc(PAGE).expect("there is memory");
    let own = user.alloc(PAGE).expect("there is memory");
    area.write(4096, b"through two cards").expect("inside");
    let small = owner.alloc(100).expect("there is memory");
    assert!(
        small.open(Registration::Pci).is_err(),
        "VESHM is whole pages"
    );

    let opened = area.open(Registration::Pci).expect("whole pages");
    let area = opened.area();
    assert!(owner.attach_vehva(&area).is_err(), "not in the owner");
    let attached = user
        .attach_vehva(&area)
        .expect("the owner is on another VE");
    let registered = own.register().expect("whole pages");
    user.dma(registered.vehva(), attached.vehva() + 4096, 20)
        .expect("both are mapped");
    let mut seen = [0; 17];
    own.read(0, &mut seen).expect("inside");
    assert_eq!(&seen, b"through two cards");
    let refused = user.dma(0x7ff_0000_0000, registered.vehva(), 4);
    assert!(
        matches!(refused, Err(Error::Exception { bits: 0x2000 })),
        "{refused:?}"
    );
    assert!(user.attach_segment(-1).is_err());

    // Two processes of one VE: transfers to the other's memory by what one of them attached.
    let neighbour = veo.create(Some(0)).expect("VE 0");
    let second = owner.alloc(PAGE).expect("there is memory");
    let open = second.open(Registration::OwnVe).expect("whole pages");
    assert!(user.attach_vemva(&open.area()).is_err(), "on another VE");
    assert!(owner.attach_vemva(&open.area()).is_err(), "its own");
    let mapped = neighbour.attach_vemva(&open.area()).expect("on its VE");
    mapped.write(PAGE - 5, b"near!").expect("inside");
    assert!(mapped.write(PAGE - 4, b"near!").is_err(), "outside");
    let mut near = [0; 5];
    second.read(PAGE - 5, &mut near).expect("inside");
    assert_eq!(&near, b"near!");
    drop(open);
    second.write(3, b"kept").expect("inside");
    let mut kept = [0; 4];
    mapped
        .read(3, &mut kept)
        .expect("attachments outlive the area");
    assert_eq!(&kept, b"kept");
    drop(attached);
    let gone = user.dma(registered.vehva(), 0x700_0000_0000, 4);
    assert!(matches!(gone, Err(Error::Exception { .. })), "{gone:?}");
}

#[test]
fn a_process_and_its_memory_by_a_loaded_library() {
    run_native("process");
}

#[test]
fn two_ves_by_a_loaded_library() {
    run_native("shared");
}

/// `windlass info` asks the library that is named, and says whose Vector Engines ranks are on.
#[test]
fn info_says_the_version_of_the_library() {
    for package in ["windlass-veo", "windlass-launcher"] {
        cc::package(package);
    }
    let mut info = Command::new(cc::profile().join("windlass"));
    info.arg("info");
    info.env("WINDLASS_LIBVEO", cc::profile().join("libveo.so.1"));
    let ended = cc::run(info);
    ended.succeeded();
    for words in [
        "API version 16, windlass",
        "Vector Engines of ranks are emulated",
    ] {
        assert!(ended.stdout.contains(words), "{}", ended.stdout);
    }
}

#[test]
fn nothing_is_loaded_unless_it_is_asked_for() {
    run("emulated", &[]);
    run("emulated", &[("WINDLASS_VE", Path::new("emulated"))]);
}

#[test]
fn a_library_that_will_not_do_says_what_would() {
    let refused = run("refused", &[("WINDLASS_VE", Path::new("card"))]);
    assert!(
        refused.contains("WINDLASS_VE=card is not accepted"),
        "{refused}"
    );
    let refused = run("refused", &native(Path::new("/does/not/exist.so")));
    assert!(refused.contains("name it by WINDLASS_LIBVEO"), "{refused}");
    for (version, text) in [
        ("15", "of API version 15, and 16 is needed"),
        ("16", "has no veo_"),
    ] {
        let define = format!("-DVERSION={version}");
        let arguments = ["-shared", "-fPIC", &define];
        let name = format!("libveo_{version}.so");
        let old = cc::compile(&name, &["tests/c/veo_old.c"], &arguments);
        let refused = run("refused", &native(&old));
        assert!(refused.contains(text), "{refused}");
    }
    // Another library altogether.
    let refused = run("refused", &native(Path::new("libm.so.6")));
    assert!(refused.contains("has no veo_api_version"), "{refused}");
}

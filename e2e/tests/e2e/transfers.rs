//! Every file comes whole, through any chain.

use crate::world::{MIB, World, hops, some_chunks};
use relay_testkit::files::{b3_of_file, names_in, write_sparse};
use relay_testkit::process::Process;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime};

#[test]
fn through_any_number_of_relays() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(3));
    let nodes = world.chain(10);
    for relays in [0, 1, 3, 10] {
        let finished = world.fetch("myfile", &hops(&nodes[10 - relays..]), &[]);
        world.check_saved(&finished, "myfile", &bytes);
        fs::remove_file(world.saved().join("myfile")).expect("removed");
    }
}

#[test]
fn a_route_file_as_its_users_have_it() {
    let world = World::new();
    let bytes = world.offer("my file", some_chunks(1));
    let nodes = world.chain(1);
    let route = world.route("my file", &hops(&nodes));
    let finished = world.client(&[route.to_str().expect("UTF-8")]);
    world.check_saved(&finished, "my file", &bytes);
    let hash = b3_of_file(&world.saved().join("my file"));
    assert!(finished.stderr.contains(&hash), "the hash that b3sum prints: {}", finished.stderr);
}

#[test]
fn the_same_two_nodes_four_times() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(2));
    let nodes = world.chain(1);
    let route: Vec<String> = hops(&nodes).into_iter().cycle().take(8).collect();
    let finished = world.fetch("myfile", &route, &[]);
    world.check_saved(&finished, "myfile", &bytes);
}

#[test]
fn every_size_around_a_chunk() {
    let world = World::new();
    let nodes = world.chain(1);
    for size in [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 5 * MIB - 1] {
        let name = format!("size-{size}");
        let bytes = world.offer(&name, size);
        let finished = world.fetch(&name, &hops(&nodes), &[]);
        world.check_saved(&finished, &name, &bytes);
        let hash = blake_hex(&world, &name);
        assert!(finished.stderr.contains(&hash), "{size} bytes: {}", finished.stderr);
    }
}

fn blake_hex(world: &World, name: &str) -> String {
    b3_of_file(&world.served().join(name))
}

#[test]
fn one_gibibyte_with_holes() {
    let world = World::new();
    let path = world.served().join("large");
    write_sparse(&path, 1 << 30);
    let mut file = File::options().write(true).open(&path).expect("the file");
    for at in [0, 300 << 20, (1 << 30) - 5] {
        file.seek(SeekFrom::Start(at)).expect("a place");
        file.write_all(b"bytes").expect("written");
    }
    let nodes = world.chain(1);
    let finished = world.start_fetch("large", &hops(&nodes), &[]).finish_within(Duration::from_secs(120));
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let expected = b3_of_file(&path);
    assert!(finished.stderr.contains(&expected), "{}", finished.stderr);
    assert_eq!(b3_of_file(&world.saved().join("large")), expected);
}

#[test]
fn a_hundred_clients_at_once() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(2));
    let nodes = world.chain(3);
    let route = hops(&nodes);
    let clients: Vec<(String, Process)> = (0..100)
        .map(|n| {
            let name = format!("copy-{n}");
            let client = world.start_fetch("myfile", &route, &["-o", &name, "--timeout", "60"]);
            (name, client)
        })
        .collect();
    for (name, client) in clients {
        let finished = client.finish_within(Duration::from_secs(120));
        assert_eq!(finished.code, Some(0), "{name}: {}", finished.stderr);
        assert!(fs::read(world.saved().join(&name)).expect("a copy") == bytes, "{name} differs");
    }
    assert_eq!(names_in(&world.saved()).len(), 100, "and nothing else");
}

#[test]
fn standard_output_gets_the_bytes_alone() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(3));
    let nodes = world.chain(1);
    let finished = world.fetch("myfile", &hops(&nodes), &["-o", "-"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout == bytes, "{} bytes came out", finished.stdout.len());
    assert!(names_in(&world.saved()).is_empty());
}

#[test]
fn the_modification_time_comes_along_and_the_second_run_fetches_nothing() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(1));
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_700);
    File::options()
        .write(true)
        .open(world.served().join("myfile"))
        .expect("a file")
        .set_modified(time)
        .expect("set");
    let nodes = world.chain(1);
    let finished = world.fetch("myfile", &hops(&nodes), &[]);
    world.check_saved(&finished, "myfile", &bytes);
    let saved = fs::metadata(world.saved().join("myfile")).and_then(|meta| meta.modified()).expect("a time");
    assert_eq!(saved, time);
    let again = world.fetch("myfile", &hops(&nodes), &[]);
    world.check_saved(&again, "myfile", &bytes);
    assert!(again.stderr.contains("nothing to fetch"), "{}", again.stderr);
}

/// A name from the route file must not lead anywhere but to the base name in the current directory.
#[test]
fn a_name_with_directories_saves_under_its_base_name() {
    let world = World::new();
    let bytes = world.offer("deep/er/größe 1.txt", 1000);
    let nodes = world.chain(1);
    let finished = world.fetch("deep/er/größe 1.txt", &hops(&nodes), &[]);
    world.check_saved(&finished, "größe 1.txt", &bytes);
    assert_eq!(names_in(&world.saved()), ["größe 1.txt"]);
}

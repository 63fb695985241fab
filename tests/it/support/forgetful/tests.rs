//! The disk's own tests: every rule a test, through the kernel.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use super::{super::seed::seed, Forgetful, Luck, SyncKind};

fn disk() -> Forgetful {
    Forgetful::mount()
}

fn sync_dir(path: impl AsRef<Path>) {
    File::open(path).unwrap().sync_all().unwrap();
}

/// Writes a file and syncs its data, not its name.
fn write_synced(path: impl AsRef<Path>, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// A file with durable data and a durable name.
fn write_durable(path: impl AsRef<Path>, bytes: &[u8]) {
    write_synced(&path, bytes);
    sync_dir(path.as_ref().parent().unwrap());
}

fn names(path: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn behaves_like_a_file_system_while_the_power_is_on() {
    let disk = disk();
    let root = disk.path().to_owned();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/one"), b"hello").unwrap();
    assert_eq!(fs::read(root.join("a/b/one")).unwrap(), b"hello");
    assert_eq!(fs::metadata(root.join("a/b/one")).unwrap().len(), 5);

    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(root.join("a/b/one"))
        .unwrap();
    file.write_all_at(b"J", 0).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(b"!").unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "Jello!");
    file.set_len(2).unwrap();
    assert_eq!(fs::read(root.join("a/b/one")).unwrap(), b"Je");
    file.set_len(4).unwrap();
    assert_eq!(fs::read(root.join("a/b/one")).unwrap(), b"Je\0\0");
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .unwrap();
    assert_eq!(
        fs::metadata(root.join("a/b/one"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    let mut appended = OpenOptions::new()
        .append(true)
        .open(root.join("a/b/one"))
        .unwrap();
    appended.write_all(b"x").unwrap();
    assert_eq!(fs::read(root.join("a/b/one")).unwrap(), b"Je\0\0x");

    fs::hard_link(root.join("a/b/one"), root.join("a/two")).unwrap();
    fs::rename(root.join("a/two"), root.join("a/three")).unwrap();
    assert_eq!(names(root.join("a")), ["b", "three"]);
    assert_eq!(
        fs::rename(root.join("a"), root.join("a/b/c"))
            .unwrap_err()
            .raw_os_error(),
        Some(libc::EINVAL)
    );
    assert_eq!(
        fs::remove_dir(root.join("a")).unwrap_err().raw_os_error(),
        Some(libc::ENOTEMPTY)
    );
    assert_eq!(
        fs::create_dir(root.join("a")).unwrap_err().raw_os_error(),
        Some(libc::EEXIST)
    );
    let exclusive = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(root.join("a/three"));
    assert_eq!(exclusive.unwrap_err().raw_os_error(), Some(libc::EEXIST));
    let missing = fs::read(root.join("a/four")).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));

    // An open file outlives its name.
    fs::remove_file(root.join("a/b/one")).unwrap();
    fs::remove_file(root.join("a/three")).unwrap();
    let mut kept = [0; 2];
    file.read_exact_at(&mut kept, 0).unwrap();
    assert_eq!(&kept, b"Je");
    fs::remove_dir_all(root.join("a")).unwrap();
    assert!(names(&root).is_empty());

    for n in 0..1000 {
        fs::write(root.join(format!("file-{n:04}")), b"").unwrap();
    }
    assert_eq!(
        names(&root).len(),
        1000,
        "a directory of more than one page"
    );
}

#[test]
fn renames_replace_files_and_empty_directories_only() {
    let disk = disk();
    let root = disk.path();
    fs::write(root.join("file"), b"1").unwrap();
    fs::write(root.join("other"), b"2").unwrap();
    fs::rename(root.join("file"), root.join("other")).unwrap();
    assert_eq!(fs::read(root.join("other")).unwrap(), b"1");
    fs::create_dir_all(root.join("full/inner")).unwrap();
    fs::create_dir(root.join("dir")).unwrap();
    let error = |from: &str, to: &str| {
        fs::rename(root.join(from), root.join(to))
            .unwrap_err()
            .raw_os_error()
    };
    assert_eq!(error("dir", "full"), Some(libc::ENOTEMPTY));
    assert_eq!(error("dir", "other"), Some(libc::ENOTDIR));
    assert_eq!(error("other", "dir"), Some(libc::EISDIR));
    fs::rename(root.join("full"), root.join("dir")).unwrap();
    assert_eq!(names(root.join("dir")), ["inner"]);
}

#[test]
fn locks_work() {
    let disk = disk();
    let one = File::create(disk.path().join("lock")).unwrap();
    let two = File::open(disk.path().join("lock")).unwrap();
    one.lock().unwrap();
    assert!(two.try_lock().is_err());
    drop(one);
    two.try_lock().unwrap();
}

#[test]
fn synced_data_with_a_synced_name_survives() {
    let mut disk = disk();
    let file = disk.path().join("file");
    write_durable(&file, b"kept");
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(fs::read(&file).unwrap(), b"kept");
}

#[test]
fn fdatasync_makes_data_durable() {
    let mut disk = disk();
    let path = disk.path().join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"kept").unwrap();
    file.sync_data().unwrap();
    sync_dir(disk.path());
    drop(file);
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(fs::read(&path).unwrap(), b"kept");
}

#[test]
fn fsync_of_a_file_does_not_make_its_name_durable() {
    let mut disk = disk();
    write_synced(disk.path().join("file"), b"data");
    disk.cut();
    disk.power_on(Luck::Lost);
    assert!(names(disk.path()).is_empty());
}

#[test]
fn fsync_of_a_directory_does_not_make_its_files_contents_durable() {
    let mut disk = disk();
    fs::write(disk.path().join("file"), b"data").unwrap();
    sync_dir(disk.path());
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(
        fs::read(disk.path().join("file")).unwrap(),
        b"",
        "the name is there, the data is not"
    );
}

#[test]
fn data_written_after_the_sync_is_lost() {
    let mut disk = disk();
    let path = disk.path().join("file");
    write_durable(&path, b"old");
    fs::write(&path, b"newer").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"newer");
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(fs::read(&path).unwrap(), b"old");
}

#[test]
fn a_new_directory_needs_its_parent_synced_and_so_does_its_own_parent() {
    let mut disk = disk();
    let root = disk.path().to_owned();
    fs::create_dir_all(root.join("a/b")).unwrap();
    write_durable(root.join("a/b/file"), b"data");
    sync_dir(root.join("a"));
    disk.cut();
    disk.power_on(Luck::Lost);
    assert!(names(&root).is_empty(), "nobody synced the entry `a`");

    fs::create_dir_all(root.join("a/b")).unwrap();
    write_durable(root.join("a/b/file"), b"data");
    sync_dir(root.join("a"));
    sync_dir(&root);
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(fs::read(root.join("a/b/file")).unwrap(), b"data");
}

#[test]
fn an_unlink_needs_its_directory_synced() {
    let mut disk = disk();
    let root = disk.path().to_owned();
    write_durable(root.join("one"), b"1");
    write_durable(root.join("two"), b"2");
    fs::remove_file(root.join("one")).unwrap();
    sync_dir(&root);
    fs::remove_file(root.join("two")).unwrap();
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(names(&root), ["two"]);
    assert_eq!(fs::read(root.join("two")).unwrap(), b"2");
}

#[test]
fn an_rmdir_needs_its_directory_synced() {
    let mut disk = disk();
    let root = disk.path().to_owned();
    fs::create_dir(root.join("one")).unwrap();
    fs::create_dir(root.join("two")).unwrap();
    sync_dir(&root);
    fs::remove_dir(root.join("one")).unwrap();
    sync_dir(&root);
    fs::remove_dir(root.join("two")).unwrap();
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(names(&root), ["two"]);
}

#[test]
fn a_link_is_an_entry_like_any_other() {
    let mut disk = disk();
    let root = disk.path().to_owned();
    fs::create_dir(root.join("dir")).unwrap();
    write_durable(root.join("one"), b"1");
    fs::hard_link(root.join("one"), root.join("dir/two")).unwrap();
    fs::hard_link(root.join("one"), root.join("three")).unwrap();
    sync_dir(root.join("dir"));
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(names(&root), ["dir", "one"]);
    assert_eq!(fs::read(root.join("dir/two")).unwrap(), b"1");
}

#[test]
fn a_rename_within_a_directory_needs_it_synced_and_replaces_whole() {
    let mut disk = disk();
    let root = disk.path().to_owned();
    write_durable(root.join("file"), b"old");
    write_synced(root.join("temp"), b"new");
    fs::rename(root.join("temp"), root.join("file")).unwrap();
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(names(&root), ["file"]);
    assert_eq!(fs::read(root.join("file")).unwrap(), b"old");

    write_synced(root.join("temp"), b"new");
    fs::rename(root.join("temp"), root.join("file")).unwrap();
    sync_dir(&root);
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(names(&root), ["file"]);
    assert_eq!(fs::read(root.join("file")).unwrap(), b"new");
}

#[test]
fn a_rename_of_unsynced_data_leaves_an_empty_file() {
    let mut disk = disk();
    let root = disk.path().to_owned();
    fs::write(root.join("temp"), b"data").unwrap();
    fs::rename(root.join("temp"), root.join("file")).unwrap();
    sync_dir(&root);
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(fs::read(root.join("file")).unwrap(), b"");
}

#[test]
fn each_side_of_a_rename_across_directories_has_a_sync_of_its_own() {
    let mut disk = disk();
    let root = disk.path().to_owned();
    for dir in ["from", "to"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    sync_dir(&root);
    for name in ["one", "two", "three"] {
        write_durable(root.join("from").join(name), name.as_bytes());
    }
    // Synced on neither side: not moved.
    fs::rename(root.join("from/one"), root.join("to/one")).unwrap();
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(
        (names(root.join("from")).len(), names(root.join("to")).len()),
        (3, 0)
    );
    // Synced where it came to: there, and where it was as well.
    fs::rename(root.join("from/one"), root.join("to/one")).unwrap();
    sync_dir(root.join("to"));
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(names(root.join("to")), ["one"]);
    assert_eq!(names(root.join("from")), ["one", "three", "two"]);
    // Synced where it was: gone from both.
    fs::rename(root.join("from/two"), root.join("to/two")).unwrap();
    sync_dir(root.join("from"));
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(names(root.join("to")), ["one"]);
    assert_eq!(names(root.join("from")), ["one", "three"]);
    // Synced on both.
    fs::rename(root.join("from/three"), root.join("to/three")).unwrap();
    sync_dir(root.join("to"));
    sync_dir(root.join("from"));
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(names(root.join("to")), ["one", "three"]);
    assert_eq!(fs::read(root.join("to/three")).unwrap(), b"three");
}

#[test]
fn a_moved_directory_keeps_one_name() {
    let mut disk = disk();
    let root = disk.path().to_owned();
    for dir in ["from", "to", "from/dir"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    sync_dir(&root);
    sync_dir(root.join("from"));
    write_durable(root.join("from/dir/file"), b"data");
    fs::rename(root.join("from/dir"), root.join("to/dir")).unwrap();
    sync_dir(root.join("to"));
    disk.cut();
    disk.power_on(Luck::Lost);
    assert!(names(root.join("from")).is_empty());
    assert_eq!(fs::read(root.join("to/dir/file")).unwrap(), b"data");
}

#[test]
fn what_has_settled_survives() {
    let mut disk = disk();
    let root = disk.path().to_owned();
    write_durable(root.join("gone"), b"");
    fs::remove_file(root.join("gone")).unwrap();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/file"), b"data").unwrap();
    disk.settle();
    fs::write(root.join("a/b/later"), b"").unwrap();
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(fs::read(root.join("a/b/file")).unwrap(), b"data");
    assert_eq!(
        (names(&root), names(root.join("a/b"))),
        (vec!["a".to_owned()], vec!["file".to_owned()])
    );
}

#[test]
fn with_luck_everything_survives() {
    let mut disk = disk();
    let root = disk.path().to_owned();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/file"), b"data").unwrap();
    disk.cut();
    disk.power_on(Luck::Kept);
    assert_eq!(fs::read(root.join("a/b/file")).unwrap(), b"data");
}

/// Every outcome that the rules allow comes up, none that they do not, and a seed repeats its own.
#[test]
fn without_syncs_names_and_data_survive_at_random() {
    let first = seed("without_syncs_names_and_data_survive_at_random");
    let (old, new) = (vec![b'o'; 3 * 4096], vec![b'n'; 4 * 4096]);
    let mut outcomes = BTreeSet::new();
    for n in 0..60 {
        let mut found = Vec::new();
        for _again in 0..if n < 10 { 2 } else { 1 } {
            let mut disk = disk();
            let root = disk.path().to_owned();
            write_durable(root.join("changed"), &old);
            write_durable(root.join("removed"), b"");
            write_durable(root.join("synced"), &new);
            fs::write(root.join("changed"), &new).unwrap();
            fs::write(root.join("made"), b"").unwrap();
            fs::remove_file(root.join("removed")).unwrap();
            disk.cut();
            disk.power_on(Luck::Random(first.wrapping_add(n)));
            let data = fs::read(root.join("changed")).unwrap();
            assert_eq!(fs::read(root.join("synced")).unwrap(), new);
            let kind = match &data {
                _ if data == old => "old",
                _ if data == new => "new",
                _ if data.is_empty() => "empty",
                _ if new.starts_with(&data) => "beginning",
                _ => {
                    assert_eq!(data.len(), new.len(), "torn within the new length");
                    for page in data.chunks(4096) {
                        assert!(page.iter().all(|byte| *byte == page[0]), "pages are whole");
                        assert!(b"on\0".contains(&page[0]));
                    }
                    "torn"
                }
            };
            found.push((kind, data, names(&root)));
        }
        let once = found.pop().unwrap();
        assert!(
            found.iter().all(|again| *again == once),
            "the same seed, the same outcome"
        );
        outcomes.insert(format!("data {}", once.0));
        for name in ["made", "removed"] {
            outcomes.insert(format!("{name} {}", once.2.iter().any(|n| n == name)));
        }
    }
    let expected = [
        "data beginning",
        "data empty",
        "data new",
        "data old",
        "data torn",
        "made false",
        "made true",
        "removed false",
        "removed true",
    ];
    assert_eq!(
        outcomes.iter().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn during_a_cut_everything_fails() {
    let mut disk = disk();
    let root = disk.path().to_owned();
    write_durable(root.join("file"), b"data");
    let mut open = OpenOptions::new()
        .read(true)
        .write(true)
        .open(root.join("file"))
        .unwrap();
    disk.cut();
    let eio = Some(libc::EIO);
    assert_eq!(open.write(b"x").unwrap_err().raw_os_error(), eio);
    assert_eq!(open.sync_all().unwrap_err().raw_os_error(), eio);
    assert_eq!(fs::read(root.join("file")).unwrap_err().raw_os_error(), eio);
    assert_eq!(
        fs::write(root.join("other"), b"")
            .unwrap_err()
            .raw_os_error(),
        eio
    );
    assert_eq!(
        fs::create_dir(root.join("dir")).unwrap_err().raw_os_error(),
        eio
    );
    assert_eq!(
        fs::remove_file(root.join("file"))
            .unwrap_err()
            .raw_os_error(),
        eio
    );
    assert_eq!(
        fs::rename(root.join("file"), root.join("b"))
            .unwrap_err()
            .raw_os_error(),
        eio
    );
    assert_eq!(fs::read_dir(&root).unwrap_err().raw_os_error(), eio);
    drop(open);
    disk.power_on(Luck::Lost);
    assert_eq!(fs::read(root.join("file")).unwrap(), b"data");
}

#[test]
fn the_power_goes_at_the_call_that_was_named() {
    let mut disk = disk();
    let root = disk.path().to_owned();
    disk.cut_at(3);
    fs::create_dir(root.join("one")).unwrap();
    sync_dir(&root);
    assert!(!disk.is_off());
    assert!(fs::create_dir(root.join("two")).is_err());
    assert!(disk.wait_for_cut(Duration::ZERO));
    disk.power_on(Luck::Kept);
    assert_eq!(names(&root), ["one"], "the third call had no effect");
}

#[test]
fn one_call_fails_or_all_from_one_on() {
    let disk = disk();
    let root = disk.path();
    disk.fail_once(2, libc::EIO);
    fs::create_dir(root.join("one")).unwrap();
    assert!(!disk.fault_reached());
    assert_eq!(
        fs::create_dir(root.join("two")).unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    assert!(disk.fault_reached());
    fs::create_dir(root.join("two")).unwrap();
    disk.fail_from(2, libc::EROFS);
    fs::create_dir(root.join("three")).unwrap();
    for _ in 0..3 {
        assert_eq!(
            fs::remove_dir(root.join("three"))
                .unwrap_err()
                .raw_os_error(),
            Some(libc::EROFS)
        );
    }
    assert_eq!(names(root), ["one", "three", "two"], "reading goes on");
    disk.heal();
    fs::remove_dir(root.join("three")).unwrap();
}

#[test]
fn a_full_disk_refuses_what_takes_space_and_nothing_else() {
    let disk = disk();
    let root = disk.path();
    fs::write(root.join("file"), b"data").unwrap();
    let mut open = OpenOptions::new()
        .write(true)
        .open(root.join("file"))
        .unwrap();
    disk.set_full(true);
    let full = Some(libc::ENOSPC);
    assert_eq!(
        fs::create_dir(root.join("dir")).unwrap_err().raw_os_error(),
        full
    );
    assert_eq!(open.write(b"x").unwrap_err().raw_os_error(), full);
    open.sync_all().unwrap();
    assert_eq!(fs::read(root.join("file")).unwrap(), b"data");
    fs::rename(root.join("file"), root.join("other")).unwrap();
    fs::remove_file(root.join("other")).unwrap();
    disk.heal();
    open.write_all(b"x").unwrap();
}

#[test]
fn after_a_failed_fsync_a_second_one_makes_nothing_durable() {
    let mut disk = disk();
    let path = disk.path().join("file");
    let mut file = File::create(&path).unwrap();
    sync_dir(disk.path());
    file.write_all(b"data").unwrap();
    disk.fail_once(1, libc::EIO);
    assert!(file.sync_all().is_err());
    file.sync_all().unwrap();
    drop(file);
    disk.cut();
    disk.power_on(Luck::Lost);
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn counts_fsyncs_with_their_paths() {
    let disk = disk();
    let root = disk.path();
    fs::create_dir(root.join("dir")).unwrap();
    write_durable(root.join("dir/file"), b"data");
    File::open(root.join("dir/file"))
        .unwrap()
        .sync_data()
        .unwrap();
    let syncs: Vec<_> = disk
        .take_syncs()
        .into_iter()
        .map(|sync| (sync.kind, sync.path))
        .collect();
    let file = || "dir/file".to_owned();
    let expected = [
        (SyncKind::File, file()),
        (SyncKind::Directory, "dir".to_owned()),
        (SyncKind::FileData, file()),
    ];
    assert_eq!(syncs, expected);
    assert!(disk.take_syncs().is_empty());
    let log = disk.log();
    let words: Vec<&str> = [
        "mkdir",
        "create",
        "write",
        "fsync",
        "fsync directory",
        "fdatasync",
    ]
    .into_iter()
    .filter(|word| log.contains(word))
    .collect();
    assert_eq!(words.len(), 6, "{log}");
}

/// Fast enough to be no bottleneck: 2,000 calls take far less than this, even where much else goes on.
#[test]
fn is_quick() {
    let disk = disk();
    let started = Instant::now();
    for n in 0..500 {
        write_synced(disk.path().join(format!("{n}")), b"data");
        fs::remove_file(disk.path().join(format!("{n}"))).unwrap();
    }
    let took = started.elapsed();
    assert!(disk.calls() >= 2000);
    eprintln!("{} calls in {took:?}", disk.calls());
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn dropping_it_unmounts() {
    let disk = disk();
    let path = disk.path().to_owned();
    let mounted = || {
        fs::read_to_string("/proc/mounts")
            .unwrap()
            .contains(path.to_str().unwrap())
    };
    assert!(mounted());
    let open = File::create(path.join("file")).unwrap();
    drop(disk);
    assert!(!mounted(), "even while a file is open");
    drop(open);
}

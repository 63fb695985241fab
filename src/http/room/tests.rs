use super::*;

fn whose(address: u8, connection: u64) -> Whose {
    Whose::new(Some(SocketAddr::from(([10, 0, 0, address], 1))), connection)
}

async fn take(room: &Room, whose: Whose, bytes: u64) -> Share {
    room.take(whose, bytes).await.expect("few wait")
}

async fn taken_now(room: &Room, whose: Whose, bytes: u64) -> Option<Share> {
    tokio::select! {
        biased;
        share = room.take(whose, bytes) => share.ok(),
        () = tokio::task::yield_now() => None,
    }
}

/// Takes as many as it gets.
async fn take_all(room: &Room, whose: Whose, bytes: u64) -> Vec<Share> {
    let mut shares = Vec::new();
    while let Some(share) = taken_now(room, whose, bytes).await {
        shares.push(share);
    }
    shares
}

#[tokio::test]
async fn no_address_takes_all_and_the_last_is_for_small_bodies() {
    let room = Room::default();
    let mut all = Vec::new();
    for (address, uploads, small) in [(1, 32, 16), (2, 30, 32), (3, 0, 0)] {
        let shares = take_all(&room, whose(address, address.into()), UPLOAD).await;
        assert_eq!(shares.len(), uploads, "address {address}");
        all.extend(shares);
        let shares = take_all(&room, whose(address, address.into()), 1).await;
        assert_eq!(shares.len(), small, "address {address}");
        all.extend(shares);
    }
    drop(all);
    let taken = room.taken();
    assert_eq!(taken.units, 0);
    assert!(taken.shares.is_empty() && taken.addresses.is_empty() && taken.connections.is_empty());
}

#[tokio::test]
async fn room_goes_to_the_address_that_has_least_whoever_came_first() {
    let room = Room::default();
    let mut shares = Vec::new();
    for address in 1..=3 {
        shares.extend(take_all(&room, whose(address, address.into()), UPLOAD).await);
    }
    let many = tokio::spawn({
        let room = room.clone();
        async move { take(&room, whose(1, 7), UPLOAD).await }
    });
    tokio::task::yield_now().await;
    let few = tokio::spawn({
        let room = room.clone();
        async move { take(&room, whose(9, 8), UPLOAD).await }
    });
    tokio::task::yield_now().await;
    drop(shares.pop());
    let share = few.await.expect("no panic");
    assert!(!many.is_finished());
    drop((share, shares));
    many.await.expect("no panic");
}

#[tokio::test]
async fn a_large_body_is_not_overtaken_for_ever_and_none_is_too_large() {
    let room = Room::default();
    let mut shares = Vec::new();
    for address in 0..32 {
        for _ in 0..2 {
            shares.push(take(&room, whose(address, address.into()), UPLOAD).await);
        }
    }
    let large = tokio::spawn({
        let room = room.clone();
        async move { take(&room, whose(99, 99), u64::MAX).await }
    });
    tokio::task::yield_now().await;
    drop(shares.pop());
    assert!(taken_now(&room, whose(31, 31), UPLOAD).await.is_none());
    assert!(
        taken_now(&room, whose(31, 31), 1).await.is_some(),
        "small bodies have room of their own"
    );
    shares.truncate(48);
    let share = large.await.expect("no panic");
    assert_eq!(u64::from(share.held.units), MOST);
}

#[tokio::test]
async fn who_left_while_waiting_takes_nothing() {
    let room = Room::default();
    let shares = take_all(&room, whose(1, 1), UPLOAD).await;
    assert!(taken_now(&room, whose(1, 1), UPLOAD).await.is_none());
    drop(shares);
    let taken = room.taken();
    assert_eq!((taken.units, taken.waiting.len()), (0, 0));
}

#[tokio::test]
async fn too_many_that_wait_are_those_of_the_address_that_has_most() {
    let room = Room::default();
    let mut shares = take_all(&room, whose(1, 1), UPLOAD).await;
    shares.extend(take_all(&room, whose(2, 2), UPLOAD).await);
    let wait = |address: u8| {
        let room = room.clone();
        tokio::spawn(async move { room.take(whose(address, address.into()), UPLOAD).await })
    };
    let few: Vec<_> = (0..3).map(|_| wait(3)).collect();
    let many: Vec<_> = (0..WAITING).map(|_| wait(1)).collect();
    for waiting in &many[WAITING - 3..] {
        while !waiting.is_finished() {
            tokio::task::yield_now().await;
        }
    }
    let lost = many.iter().filter(|waiting| waiting.is_finished()).count();
    assert_eq!(lost, 3);
    drop(shares);
    for waiting in few {
        waiting.await.expect("no panic").expect("room");
    }
}

#[tokio::test]
async fn who_sends_nothing_loses_the_room_when_others_wait() {
    let room = Room::default();
    let mut shares = take_all(&room, whose(1, 1), UPLOAD).await;
    let later = |seconds| Instant::now() + Duration::from_secs(seconds);
    // The first one came whole, and is written to the disk.
    shares.iter().skip(1).for_each(Share::wait);
    room.taken().look(later(60));
    let lost = |shares: &[Share]| -> Vec<usize> {
        let lost = shares.iter().enumerate();
        lost.filter(|(_, share)| share.held.client().is_lost)
            .map(|(n, _)| n)
            .collect()
    };
    assert_eq!(lost(&shares), [0; 0], "nobody waits");
    let waiting = tokio::spawn({
        let room = room.clone();
        async move { take(&room, whose(1, 2), UPLOAD).await }
    });
    tokio::task::yield_now().await;
    room.taken().look(later(62));
    let [one] = lost(&shares)[..] else {
        panic!("{:?}", lost(&shares));
    };
    assert_ne!(one, 0);
    let share = shares.swap_remove(one);
    share.lost().await;
    drop(share);
    waiting.await.expect("no panic");
}

#[tokio::test]
async fn what_comes_is_worth_the_room() {
    let room = Room::default();
    let share = take(&room, whose(1, 1), UPLOAD).await;
    let overdue = |seconds| {
        let later = Instant::now() + Duration::from_secs(seconds);
        share.held.overdue(later).is_some()
    };
    assert!(!overdue(60), "nothing was asked for");
    share.wait();
    assert!(!overdue(4) && overdue(6));
    share.received(100 << 20);
    assert!(!overdue(60));
    share.wait();
    assert!(!overdue(4) && overdue(6), "a pause may not be longer");
}

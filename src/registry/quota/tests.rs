use super::*;
use crate::oci::Algorithm;

fn quotas(all: &[(&str, u64)]) -> Quotas {
    let quota = |(pattern, size): &(&str, u64)| settings::Quota {
        repositories: vec![pattern.parse().unwrap()],
        size: *size,
    };
    let quotas = Quotas::new(&all.iter().map(quota).collect::<Vec<_>>());
    quotas.ledger().is_known = true;
    quotas
}

fn used(quotas: &Quotas) -> Vec<u64> {
    quotas.ledger().uses.iter().map(|used| used.bytes).collect()
}

#[test]
fn shared_content_counts_once_and_until_its_last_link() {
    let quotas = quotas(&[("team/**", 100), ("team/a", 50)]);
    let (a, b) = ("team/a".parse().unwrap(), "team/b".parse().unwrap());
    let link = Item::Blob(Algorithm::Sha256.digest(b"layer")).link();
    let add = |repo, len| quotas.add(&mut quotas.ledger(), repo, link, len);
    let remove = |repo| quotas.remove(&mut quotas.ledger(), repo, link);
    assert!(add(&a, 30) && !add(&a, 30) && add(&b, 30));
    assert_eq!(used(&quotas), [30, 30]);
    remove(&a);
    remove(&a);
    assert_eq!(used(&quotas), [30, 0]);
    let check = |repo, mark, len| quotas.check(&mut quotas.ledger(), repo, mark, len).is_ok();
    assert!(check(&a, Some(link.0), 50) && !check(&a, Some(link.0), 51));
    assert!(check(&b, Some(link.0), 1000) && check(&b, None, 70) && !check(&b, None, 71));
    remove(&b);
    assert_eq!(used(&quotas), [0, 0]);
    assert!(quotas.ledger().links.is_empty());
}

#[test]
fn what_goes_while_the_links_are_read_is_not_counted() {
    let quotas = quotas(&[("**", 100)]);
    let repo: RepoName = "a".parse().unwrap();
    let link = Item::Manifest(Algorithm::Sha256.digest(b"x")).link();
    quotas.ledger().reading = Some((repo.clone(), HashSet::new()));
    quotas.remove(&mut quotas.ledger(), &repo, link);
    let gone = |quotas: &Quotas| quotas.ledger().reading.clone().unwrap().1.contains(&link);
    assert!(gone(&quotas));
    quotas.add(&mut quotas.ledger(), &repo, link, 5);
    assert!(!gone(&quotas) && used(&quotas) == [5]);
}

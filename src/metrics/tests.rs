use super::{Disk, Metrics};

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn what_is_counted_is_shown() {
    let metrics = Metrics::new("1.2.3");
    metrics.request("get_blob", 200, 0, 100, 0.002);
    metrics.request("get_blob", 200, 0, 50, 0.002);
    metrics.request("get_blob", 404, 0, 7, 0.000_05);
    metrics.request("put_manifest", 201, 11, 0, 3.0);
    metrics.storage_call("stat", true, 0.25);
    metrics.storage_call("stat", false, 0.5);
    metrics.uploads_open(2);
    metrics.uploads_open(1);
    let text = metrics.encode(|| {
        Some(Disk {
            free: 10,
            total: 1 << 40,
        })
    });
    for (series, expected) in [
        (
            "registry_http_requests_total{operation=\"get_blob\",status=\"200\"}",
            2.0,
        ),
        (
            "registry_http_requests_total{operation=\"get_blob\",status=\"404\"}",
            1.0,
        ),
        (
            "registry_http_request_bytes_total{operation=\"get_blob\",direction=\"out\"}",
            157.0,
        ),
        (
            "registry_http_request_bytes_total{operation=\"put_manifest\",direction=\"in\"}",
            11.0,
        ),
        (
            "registry_http_request_duration_seconds_count{operation=\"get_blob\"}",
            3.0,
        ),
        (
            "registry_http_request_duration_seconds_bucket{le=\"0.0001\",operation=\"get_blob\"}",
            1.0,
        ),
        (
            "registry_http_request_duration_seconds_bucket{le=\"+Inf\",operation=\"put_manifest\"}",
            1.0,
        ),
        (
            "registry_storage_calls_total{call=\"stat\",outcome=\"ok\"}",
            1.0,
        ),
        (
            "registry_storage_calls_total{call=\"stat\",outcome=\"error\"}",
            1.0,
        ),
        ("registry_storage_seconds_total{call=\"stat\"}", 0.75),
        ("registry_uploads_open", 1.0),
        ("registry_disk_free_bytes", 10.0),
        ("registry_disk_total_bytes", (1u64 << 40) as f64),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series} in\n{text}");
    }
    assert!(
        text.contains("registry_build_info{version=\"1.2.3\""),
        "{text}"
    );
    assert!(
        value(&text, "process_start_time_seconds").is_some_and(|start| start > 1.7e9),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn an_unknown_disk_is_not_an_empty_one() {
    let metrics = Metrics::new("1");
    metrics.encode(|| Some(Disk { free: 1, total: 1 }));
    let text = metrics.encode(|| None);
    assert_eq!(value(&text, "registry_disk_free_bytes"), None, "{text}");
}

#[test]
fn threads_and_clones_count_into_the_same_and_servers_do_not() {
    let (one, other) = (Metrics::new("1"), Metrics::new("1"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let clone = one.clone();
                for i in 0..1000 {
                    let server = if i % 10 == 0 { &other } else { &clone };
                    server.request(["a", "b", "c"][i % 3], 200, 0, 1, 0.0);
                }
            });
        }
    });
    let sum = |metrics: &Metrics| {
        let text = metrics.encode(|| None);
        let count = |op| {
            value(
                &text,
                &format!("registry_http_requests_total{{operation=\"{op}\",status=\"200\"}}"),
            )
        };
        ["a", "b", "c"].into_iter().filter_map(count).sum::<f64>()
    };
    assert_eq!((sum(&one), sum(&other)), (3600.0, 400.0));
}

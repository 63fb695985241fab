-- One kind of request, again and again; the figures as one line of JSON at the end.
--   wrk ... -s requests.lua URL -- METHOD
--
-- wrk does not know that a response to HEAD has no body, and waits for one of Content-Length bytes: what is asked for
-- with HEAD must have the length 0.

function init(args)
    wrk.method = args[1]
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "not_2xx": %d, "socket_errors": %d}\n',
        summary.requests, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end

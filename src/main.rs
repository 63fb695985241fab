fn main() -> std::process::ExitCode {
    registry::run()
}

//! The binary: arguments, a runtime, an exit code.

use relay_client::cli;
use relay_client::console;
use relay_client::exit::Exit;
use relay_client::platform;
use relay_client::stop::Stop;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::read();
    if let Err(reason) = platform::raise_descriptors() {
        console::message(&format!("error: {reason}"));
        return Exit::Local.into();
    }
    // One thread for the network; hashing and writing have their own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            console::message(&format!("error: the system gives no event queue: {error}"));
            return Exit::Local.into();
        }
    };
    let exit = runtime.block_on(async {
        let stop = Stop::on_signals();
        relay_client::run(cli, stop).await
    });
    // A blocked write or name lookup must not hold up the end.
    runtime.shutdown_background();
    exit.into()
}

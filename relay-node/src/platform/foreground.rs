//! Whether there is somebody at a terminal to be asked.

/// Whether standard input and standard error are a terminal and this process is in its foreground: a background process that
/// reads the terminal would be stopped (tcgetpgrp(3), SIGTTIN).
#[cfg(unix)]
pub(crate) fn can_ask() -> bool {
    use std::io::IsTerminal;
    let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    is_terminal
        && rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Whether standard input and standard error are a terminal.
#[cfg(not(unix))]
pub(crate) fn can_ask() -> bool {
    use std::io::IsTerminal;
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

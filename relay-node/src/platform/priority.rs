//! How much of the processor a thread gets when others want it, too.

/// Has this thread give way to all others of the process. Without the means for that it goes on as it is.
pub(crate) fn lower() {
    #[cfg(target_os = "linux")]
    {
        /// Half of what can be given away (setpriority(2)): on Linux it concerns the calling thread alone.
        const GIVE_WAY: i32 = 10;
        if let Err(error) = rustix::process::setpriority_process(None, GIVE_WAY) {
            tracing::debug!(%error, "a thread goes on with its priority");
        }
    }
}

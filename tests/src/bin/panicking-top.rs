//! A program that takes the terminal as `top` does, and panics at the first key.

use anyhow::{Context, Result};
use smtp_observer::sink::top::screen::{Screen, input};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut keys = input()?;
        let mut screen = Screen::take()?;
        screen.draw(|_| ())?;
        screen.written().await?;
        keys.recv().await.context("no key")??;
        panic!("as asked");
    })
}

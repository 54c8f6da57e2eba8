//! Colours, for those who want them, and emphasis for all.

use ratatui::style::{Color, Modifier, Style};

use crate::sink::text::Emphasis;

/// How things look.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    /// With colours.
    pub colour: bool,
}

impl Theme {
    /// A program that a client knows nothing of.
    pub(super) fn interceptor(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// What broke.
    pub(super) fn bad(self) -> Style {
        self.coloured(Color::Red)
    }

    /// What asks for a look.
    pub(super) fn notable(self) -> Style {
        self.coloured(Color::Yellow)
    }

    /// What is as it should be.
    pub(super) fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    /// What is of interest, and no cause for concern.
    pub(super) fn plain_news(self) -> Style {
        self.coloured(Color::Cyan)
    }

    /// The same as in `trace`.
    pub(super) fn of(self, emphasis: Emphasis) -> Style {
        match emphasis {
            Emphasis::Dim => self.dim(),
            Emphasis::Plain => Style::new(),
            Emphasis::Good => self.good(),
            Emphasis::Progress => self.plain_news(),
            Emphasis::Notice => self.notable(),
            Emphasis::Warning => self.bad(),
            Emphasis::Alert => self.interceptor(),
        }
    }

    /// What stands back.
    pub(super) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// What stands out.
    pub(super) fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The line that is selected, headings, keys.
    pub(super) fn reversed(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn coloured(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }
}

//! Colour of words on a terminal.

/// Whether and how words are coloured on one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    colour: bool,
}

impl Paint {
    /// No colour.
    pub const PLAIN: Paint = Paint { colour: false };

    /// Colour, if there is to be any.
    #[must_use]
    pub fn of(colour: bool) -> Self {
        Paint { colour }
    }

    fn with(self, codes: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{codes}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Something that failed.
    #[must_use]
    pub fn error(self, text: &str) -> String {
        self.with("1;31", text)
    }

    /// Something that needs a look.
    #[must_use]
    pub fn warning(self, text: &str) -> String {
        self.with("1;33", text)
    }

    /// What to do next.
    #[must_use]
    pub fn hint(self, text: &str) -> String {
        self.with("1;36", text)
    }

    /// Something that went well.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    /// Something that stands out.
    #[must_use]
    pub fn strong(self, text: &str) -> String {
        self.with("1", text)
    }

    /// Something in the background.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
}

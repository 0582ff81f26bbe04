//! What `[[dashboards]]` declares, checked.

/// `[[dashboards]]`: one page of charts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DashboardConfig {
    /// The name in its URL.
    pub name: String,
    /// The title people read.
    pub title: String,
    /// A line below the title.
    pub description: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// The group it stands in.
    pub system: Option<String>,
    /// Time between two looks at panels that no change wakes (SQL), in milliseconds.
    pub refresh_ms: u64,
    /// What people can choose, in the order shown.
    pub filters: Vec<FilterConfig>,
    /// The charts, in the order shown.
    pub panels: Vec<PanelConfig>,
}

/// `[[dashboards.filters]]`: one choice on a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterConfig {
    /// Its name in the URL and in SQL.
    pub name: String,
    /// What people read.
    pub label: String,
    /// What can be chosen.
    pub kind: FilterKind,
    /// The choices, if they are listed.
    pub options: Vec<String>,
    /// SQL whose first column is the choices.
    pub sql: Option<String>,
    /// What holds when the URL does not say.
    pub default: Option<String>,
    /// The key column of views that it filters.
    pub column: String,
}

/// What can be chosen with a filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilterKind {
    /// One of the choices.
    #[default]
    Select,
    /// Several of the choices.
    Multi,
    /// Any text.
    Text,
    /// A day.
    Date,
    /// A length of time up to now.
    Period,
}

/// `[[dashboards.panels]]`: one chart, fed by a view or by SQL, never both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PanelConfig {
    /// The title people read.
    pub title: String,
    /// A help text.
    pub description: Option<String>,
    /// How the rows are drawn.
    pub kind: PanelKind,
    /// The view it reads, live.
    pub view: Option<String>,
    /// The SQL it asks at each refresh.
    pub sql: Option<String>,
    /// The column along the x axis, or the label of a bar or slice.
    pub x: Option<String>,
    /// The columns drawn as values.
    pub y: Vec<String>,
    /// The column whose values become one series each.
    pub series: Option<String>,
    /// How far back from now it reads, in milliseconds; none: the default of the page's period, or all.
    pub range_ms: Option<i64>,
    /// Only the largest so many series, bars or rows; the rest are summed as "other" where that makes sense.
    pub top: Option<usize>,
    /// Unit shown after a value, such as `plays/min`.
    pub unit: Option<String>,
    /// A variant of its kind.
    pub style: Option<PanelStyle>,
    /// Columns of twelve on a wide screen.
    pub width: Option<usize>,
    /// Where a gauge begins.
    pub min: Option<f64>,
    /// Where a gauge ends.
    pub max: Option<f64>,
    /// A mark on a gauge, or a line across a chart.
    pub target: Option<f64>,
    /// The column with the figure that a number is compared with.
    pub compare: Option<String>,
    /// What that figure is.
    pub compare_label: Option<String>,
    /// Headings of columns.
    pub labels: Vec<(String, String)>,
    /// How columns are written.
    pub formats: Vec<(String, String)>,
    /// Where the cells of columns lead.
    pub links: Vec<(String, String)>,
    /// Rules of colour: the first that matches decides.
    pub thresholds: Vec<ThresholdConfig>,
    /// The column that says the colour itself.
    pub status: Option<String>,
}

/// How a panel draws its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PanelKind {
    /// A line per series over time.
    #[default]
    Line,
    /// A bar per row or series.
    Bar,
    /// A slice per row.
    Pie,
    /// A figure between two ends.
    Gauge,
    /// One large number.
    Number,
    /// The rows themselves.
    Table,
    /// A field of colours over two columns.
    Heatmap,
}

/// A variant of a line or of bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelStyle {
    /// A line with its area filled.
    Area,
    /// Series on top of each other.
    Stacked,
    /// Bars to the right.
    Horizontal,
    /// Bars upwards.
    Vertical,
}

/// One rule of colour.
#[derive(Clone, Debug, PartialEq)]
pub struct ThresholdConfig {
    /// The column looked at; none: the first value column.
    pub column: Option<String>,
    /// Matches lesser numbers.
    pub below: Option<f64>,
    /// Matches larger numbers.
    pub above: Option<f64>,
    /// Matches this text, or a number written like it.
    pub equals: Option<String>,
    /// The colour then.
    pub colour: Colour,
}

/// How things stand, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Colour {
    /// All is well.
    Green,
    /// To be watched.
    Orange,
    /// To be acted on.
    Red,
}

impl Colour {
    /// The word in configuration and answers.
    pub fn word(self) -> &'static str {
        match self {
            Colour::Green => "green",
            Colour::Orange => "orange",
            Colour::Red => "red",
        }
    }

    /// The colour of a word.
    pub fn of_word(word: &str) -> Option<Colour> {
        [Colour::Green, Colour::Orange, Colour::Red].into_iter().find(|colour| colour.word() == word)
    }
}

impl PanelKind {
    /// The word in configuration and answers.
    pub fn word(self) -> &'static str {
        match self {
            PanelKind::Line => "line",
            PanelKind::Bar => "bar",
            PanelKind::Pie => "pie",
            PanelKind::Gauge => "gauge",
            PanelKind::Number => "number",
            PanelKind::Table => "table",
            PanelKind::Heatmap => "heatmap",
        }
    }

    /// The kind of a word.
    pub fn of_word(word: &str) -> Option<PanelKind> {
        use PanelKind::{Bar, Gauge, Heatmap, Line, Number, Pie, Table};
        [Line, Bar, Pie, Gauge, Number, Table, Heatmap].into_iter().find(|kind| kind.word() == word)
    }
}

impl PanelStyle {
    /// The word in configuration and answers.
    pub fn word(self) -> &'static str {
        match self {
            PanelStyle::Area => "area",
            PanelStyle::Stacked => "stacked",
            PanelStyle::Horizontal => "horizontal",
            PanelStyle::Vertical => "vertical",
        }
    }

    /// The style of a word.
    pub fn of_word(word: &str) -> Option<PanelStyle> {
        use PanelStyle::{Area, Horizontal, Stacked, Vertical};
        [Area, Stacked, Horizontal, Vertical].into_iter().find(|style| style.word() == word)
    }
}

impl FilterKind {
    /// The word in configuration and answers.
    pub fn word(self) -> &'static str {
        match self {
            FilterKind::Select => "select",
            FilterKind::Multi => "multi",
            FilterKind::Text => "text",
            FilterKind::Date => "date",
            FilterKind::Period => "period",
        }
    }

    /// The kind of a word.
    pub fn of_word(word: &str) -> Option<FilterKind> {
        use FilterKind::{Date, Multi, Period, Select, Text};
        [Select, Multi, Text, Date, Period].into_iter().find(|kind| kind.word() == word)
    }
}

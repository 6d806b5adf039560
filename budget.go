package earmark

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// Period is the length of a budget's window.
type Period string

// The periods. A week starts on Monday, unless the window has an anchor.
const (
	PeriodLifetime Period = "lifetime"
	PeriodMinute   Period = "minute"
	PeriodHour     Period = "hour"
	PeriodDay      Period = "day"
	PeriodWeek     Period = "week"
	PeriodMonth    Period = "month"
	PeriodYear     Period = "year"
	// PeriodRolling is the last Window.RollingSeconds at any time.
	PeriodRolling Period = "rolling"
)

// Periods are the periods that a window may have.
var Periods = []Period{PeriodLifetime, PeriodMinute, PeriodHour, PeriodDay, PeriodWeek, PeriodMonth, PeriodYear, PeriodRolling}

// Enforcement is what a budget does with a request that does not fit.
type Enforcement string

const (
	// EnforcementHard denies a request that would exceed the limit (rule R1).
	EnforcementHard Enforcement = "hard"
	// EnforcementSoft admits past the limit, up to the soft ceiling if one is set.
	EnforcementSoft Enforcement = "soft"
)

// OveragePolicy is what a budget does with usage beyond the reserved amount.
type OveragePolicy string

const (
	// OverageAllowWithOverdraft charges all of it, even past the limit.
	OverageAllowWithOverdraft OveragePolicy = "allow_with_overdraft"
	// OverageAllowIfAvailable charges what fits and records the rest as shortfall.
	OverageAllowIfAvailable OveragePolicy = "allow_if_available"
	// OverageReject refuses the commit; the reservation then waits for review.
	OverageReject OveragePolicy = "reject"
)

// Budget is a limit on one scope in one unit over one window.
type Budget struct {
	ID          string        `json:"id"`
	Scope       string        `json:"scope"`
	Unit        string        `json:"unit"`
	Limit       int64         `json:"limit"`
	Window      Window        `json:"window"`
	Enforcement Enforcement   `json:"enforcement"`
	SoftCeiling *int64        `json:"soft_ceiling"` // null: no ceiling
	Overage     OveragePolicy `json:"overage"`
	Allowance   Allowance     `json:"allowance"`
	CreatedAt   time.Time     `json:"created_at"`
	ArchivedAt  *time.Time    `json:"archived_at"`
	Balance     Balance       `json:"balance"` // of the current window

	Thresholds []Threshold `json:"thresholds,omitempty"`
	Rollover   *Rollover   `json:"rollover,omitempty"` // null: what a window leaves is gone

	// Template says that the budget limits nothing itself: it gives each child of its scope, such as each of
	// app/users/*, a budget of its own, which is made when first met. Its balance is that of a child with none yet.
	Template bool `json:"template,omitempty"`
	// TemplateID is the template that made this budget, or that it follows; "" without one.
	TemplateID string `json:"template_id,omitempty"`
	// FollowsTemplate says that changes of the template change this budget too. A change by hand ends that.
	FollowsTemplate bool `json:"follows_template,omitempty"`
}

// Effective says when the children of a template take over a change of it.
type Effective string

const (
	// EffectiveNow is at once.
	EffectiveNow Effective = "now"
	// EffectiveNextWindow is from each child's next window on.
	EffectiveNextWindow Effective = "next_window"
)

// Balance is the state of one window of a budget, in the budget's unit.
type Balance struct {
	Limit          int64      `json:"limit"`           // the budget's own
	Reserved       int64      `json:"reserved"`        // set aside by open reservations
	Committed      int64      `json:"committed"`       // spent
	Available      int64      `json:"available"`       // effective_limit - reserved - committed; negative if overdrawn
	EffectiveLimit int64      `json:"effective_limit"` // the limit with the overrides that are in force, and with Granted
	WindowStart    time.Time  `json:"window_start"`    // 1970-01-01 for lifetime; for rolling, the start of the oldest slice that counts
	WindowEnd      *time.Time `json:"window_end"`      // null for lifetime; for rolling, the end of the current slice

	Granted *Granted `json:"granted,omitempty"` // null: grants neither bear anything here nor have anything left
}

// BudgetRequest asks for a new budget, or for a template if the last segment of Scope is "*". Scope, Unit
// and Limit are required; WithDefaults fills the rest.
type BudgetRequest struct {
	Scope       string        `json:"scope"`
	Unit        string        `json:"unit"`
	Limit       *int64        `json:"limit"`
	Window      Window        `json:"window,omitzero"`
	Enforcement Enforcement   `json:"enforcement,omitempty"`
	SoftCeiling *int64        `json:"soft_ceiling,omitempty"`
	Overage     OveragePolicy `json:"overage,omitempty"`
	Allowance   Allowance     `json:"allowance,omitempty"`

	Thresholds []Threshold `json:"thresholds,omitempty"` // at most MaxThresholds
	Rollover   *Rollover   `json:"rollover,omitempty"`   // for windows of days, weeks, months or years
}

// WithDefaults fills missing fields: a lifetime window, UTC, hard, allow_with_overdraft, the allowance first.
func (r BudgetRequest) WithDefaults() BudgetRequest {
	if r.Window.Period == "" {
		r.Window.Period = PeriodLifetime
	}
	if r.Window.Timezone == "" {
		r.Window.Timezone = "UTC"
	}
	if r.Window.Every == 0 {
		r.Window.Every = 1
	}
	if r.Enforcement == "" {
		r.Enforcement = EnforcementHard
	}
	if r.Overage == "" {
		r.Overage = OverageAllowWithOverdraft
	}
	if r.Allowance == "" {
		r.Allowance = AllowanceFirst
	}
	r.Rollover = r.Rollover.withDefaults()
	return r
}

// Validate checks a request whose defaults are filled. The error is CodeInvalidRequest and
// names the field. Postgres checks the name of the time zone again, because only Postgres
// computes window bounds.
func (r BudgetRequest) Validate() error {
	if err := ValidateBudgetScope("scope", r.Scope); err != nil {
		return err
	}
	if err := ValidateUnit("unit", r.Unit); err != nil {
		return err
	}
	if r.Limit == nil {
		return Invalidf("limit", "is missing; give a whole number from 0")
	}
	if err := validateLimit("limit", *r.Limit); err != nil {
		return err
	}
	if err := r.Window.validate(); err != nil {
		return err
	}
	if err := validateEnforcement(r.Enforcement); err != nil {
		return err
	}
	if err := validateOverage(r.Overage); err != nil {
		return err
	}
	if err := validateAllowance(r.Allowance); err != nil {
		return err
	}
	if r.Allowance == AllowanceLast && r.Window.Period == PeriodRolling {
		return noRollingAllowance()
	}
	if len(r.Thresholds) > 0 && r.Window.Period == PeriodRolling {
		return NoRollingThresholds()
	}
	if err := ValidateThresholds("thresholds", r.Thresholds); err != nil {
		return err
	}
	if err := validateRollover(r.Rollover, r.Window.Period); err != nil {
		return err
	}
	return validateSoftCeiling(r.Enforcement, *r.Limit, r.SoftCeiling)
}

// BudgetPatch changes a budget. A nil field leaves its value unchanged. SoftCeiling is a
// double pointer: nil leaves the ceiling, a pointer to nil removes it. So is Rollover.
type BudgetPatch struct {
	Limit       *int64         `json:"limit,omitempty"`
	SoftCeiling **int64        `json:"soft_ceiling,omitempty"`
	Enforcement *Enforcement   `json:"enforcement,omitempty"`
	Overage     *OveragePolicy `json:"overage,omitempty"`
	Allowance   *Allowance     `json:"allowance,omitempty"`
	Thresholds  *[]Threshold   `json:"thresholds,omitempty"` // all of them; an empty list removes them
	Rollover    **Rollover     `json:"rollover,omitempty"`   // all of it

	// Effective says when the children of a template take the change over; nil is EffectiveNow. A change that
	// is effective now takes earlier ones with it that waited for the next window.
	Effective *Effective `json:"effective,omitempty"`
	// FollowsTemplate true lets a budget follow the template of its scope, unit, period and Every: it takes the
	// template's settings, and goes without other changes. False keeps the settings and ends that.
	FollowsTemplate *bool `json:"follows_template,omitempty"`
}

// Validate checks the patch alone. Apply checks the rules that need the stored budget, such
// as a soft ceiling below the limit.
func (p BudgetPatch) Validate() error {
	sets := p.Limit != nil || p.SoftCeiling != nil || p.Enforcement != nil || p.Overage != nil || p.Allowance != nil || p.Thresholds != nil || p.Rollover != nil
	if !sets && p.FollowsTemplate == nil {
		return Invalidf("", "nothing to change: give at least one of limit, soft_ceiling, enforcement, overage, allowance, thresholds, rollover and follows_template")
	}
	if p.FollowsTemplate != nil && (sets || p.Effective != nil) {
		return Invalidf("follows_template", "does not go with other changes: a budget that follows its template has the template's settings, and a change of these ends that anyway")
	}
	if p.Effective != nil {
		if err := oneOf("effective", *p.Effective, EffectiveNow, EffectiveNextWindow); err != nil {
			return err
		}
	}
	if p.Limit != nil {
		if err := validateLimit("limit", *p.Limit); err != nil {
			return err
		}
	}
	if p.SoftCeiling != nil && *p.SoftCeiling != nil {
		if err := validateLimit("soft_ceiling", **p.SoftCeiling); err != nil {
			return err
		}
	}
	if p.Enforcement != nil {
		if err := validateEnforcement(*p.Enforcement); err != nil {
			return err
		}
	}
	if p.Thresholds != nil {
		if err := ValidateThresholds("thresholds", *p.Thresholds); err != nil {
			return err
		}
	}
	if p.Rollover != nil {
		if err := validateRollover(*p.Rollover, ""); err != nil {
			return err
		}
	}
	if p.Allowance != nil {
		if err := validateAllowance(*p.Allowance); err != nil {
			return err
		}
	}
	if p.Overage != nil {
		return validateOverage(*p.Overage)
	}
	return nil
}

// NextWindow reports whether the children of a template take the change over with their next windows.
func (p BudgetPatch) NextWindow() bool {
	return p.Effective != nil && *p.Effective == EffectiveNextWindow
}

// Apply changes b. A budget that becomes hard loses its soft ceiling; Apply refuses a patch
// that makes it hard and sets a ceiling. After an error b is invalid. What FollowsTemplate asks for only the ledger
// can do, which knows the templates.
func (p BudgetPatch) Apply(b *Budget) error {
	_, isTemplate := cutTemplate(b.Scope)
	switch period := b.Window.Period; {
	case p.Effective != nil && !isTemplate:
		return Invalidf("effective", "is only for a template, a budget whose scope ends with *; any other changes at once")
	case p.NextWindow() && (period == PeriodLifetime || period == PeriodRolling):
		return Invalidf("effective", "next_window is not for the period %s, which has no next window; use now", period)
	case p.FollowsTemplate != nil && isTemplate:
		return Invalidf("follows_template", "is not for a template, only for a budget that a template is for")
	}
	if p.Limit != nil {
		b.Limit = *p.Limit
	}
	if p.Overage != nil {
		b.Overage = *p.Overage
	}
	if p.Allowance != nil {
		b.Allowance = *p.Allowance
		if b.Allowance == AllowanceLast && b.Window.Period == PeriodRolling {
			return noRollingAllowance()
		}
	}
	if p.Enforcement != nil {
		b.Enforcement = *p.Enforcement
		if b.Enforcement == EnforcementHard {
			b.SoftCeiling = nil
		}
	}
	if p.SoftCeiling != nil {
		b.SoftCeiling = *p.SoftCeiling
	}
	if p.Limit != nil && p.SoftCeiling == nil && b.SoftCeiling != nil && *b.SoftCeiling < b.Limit {
		return Invalidf("limit", "%d is above the budget's soft_ceiling %d; give a soft_ceiling from %d up as well, or null", b.Limit, *b.SoftCeiling, b.Limit)
	}
	if p.Thresholds != nil {
		b.Thresholds = *p.Thresholds
		if len(b.Thresholds) > 0 && b.Window.Period == PeriodRolling {
			return NoRollingThresholds()
		}
	}
	if p.Rollover != nil {
		b.Rollover = (*p.Rollover).withDefaults()
		if err := validateRollover(b.Rollover, b.Window.Period); err != nil {
			return err
		}
	}
	return validateSoftCeiling(b.Enforcement, b.Limit, b.SoftCeiling)
}

// validateSoftCeiling checks that only a soft budget has a ceiling, and that it is not
// below the limit.
func validateSoftCeiling(enforcement Enforcement, limit int64, ceiling *int64) error {
	switch {
	case ceiling == nil:
		return nil
	case enforcement != EnforcementSoft:
		return Invalidf("soft_ceiling", "is only for enforcement \"soft\"; a hard budget ends at its limit")
	case *ceiling < limit:
		return Invalidf("soft_ceiling", "%d is below the limit %d", *ceiling, limit)
	}
	return nil
}

func validateLimit(field string, limit int64) error {
	if limit < 0 {
		return Invalidf(field, "%d is negative; whole numbers from 0 are allowed", limit)
	}
	return nil
}

func validateEnforcement(e Enforcement) error {
	return oneOf("enforcement", e, EnforcementHard, EnforcementSoft)
}

func validateOverage(o OveragePolicy) error {
	return oneOf("overage", o, OverageAllowWithOverdraft, OverageAllowIfAvailable, OverageReject)
}

func noRollingAllowance() error {
	return Invalidf("allowance", "\"last\" is not for a rolling window, which takes no grants; only \"first\" is")
}

func validateAllowance(a Allowance) error {
	return oneOf("allowance", a, AllowanceFirst, AllowanceLast)
}

// timezoneAreas are the areas of the world in the IANA time zone database. Names of another
// form may mean something else, or nothing, on another machine: "localtime" and
// "posixrules" are the machine's own, "right/UTC" counts leap seconds, "CET" is a zone with
// summer time to some programs and an abbreviation without it to Postgres, and many
// installations leave out names by country ("US/Eastern", "Japan").
var timezoneAreas = []string{"Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific", "Etc"}

var timezoneForm = regexp.MustCompile(`^(` + strings.Join(timezoneAreas, "|") + `)(/[A-Z][A-Za-z0-9_+-]*){1,2}$`)

const maxTimezoneBytes = 64

// ValidateTimezone checks the form of a zone's name: UTC or Area/City. Postgres, which computes the windows, checks
// that the zone exists. The error is CodeInvalidRequest and names field.
func ValidateTimezone(field, name string) error {
	if name != "UTC" && (len(name) > maxTimezoneBytes || !timezoneForm.MatchString(name)) { // mutation: zone-names
		return Invalidf(field, "%q is not an IANA time zone of the form Area/City, such as Europe/Berlin, or UTC; areas are %s",
			Clip(name), strings.Join(timezoneAreas, ", "))
	}
	return nil
}

func oneOf[T ~string](field string, value T, allowed ...T) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	return Invalidf(field, "%q is not allowed; use one of %s", Clip(string(value)), strings.Join(names, ", "))
}

package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ironring/ironring/internal/errs"
)

// What is said of a command line that cannot be understood. No value is
// repeated but that of a flag whose type is not text: it may be a secret.

// wrongArgs says which arguments a command takes, from its usage line.
func wrongArgs(cmd *cobra.Command, got []string) error {
	var takes []string
	for _, word := range strings.Fields(cmd.Use)[1:] {
		if strings.HasPrefix(word, "-") {
			break // flags come last
		}
		takes = append(takes, word)
	}
	wants := "takes no arguments"
	if len(takes) > 0 {
		wants = "needs " + strings.Join(takes, " ")
	}
	return errs.New(errs.Invalid, "%s %s, but %s given\nusage: %s; see %s --help", cmd.CommandPath(), wants, counted(len(got)), cmd.UseLine(), cmd.CommandPath())
}

func counted(n int) string {
	switch n {
	case 0:
		return "none was"
	case 1:
		return "one was"
	}
	return fmt.Sprintf("%d were", n)
}

// flagError says what is wrong with a flag.
func flagError(cmd *cobra.Command, err error) error {
	see := "; see " + cmd.CommandPath() + " --help"
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	var bad *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		dashes := "--"
		if unknown.GetSpecifiedShortnames() != "" {
			dashes = "-"
		}
		return errs.New(errs.Invalid, "%s has no flag %s%s%s%s", cmd.CommandPath(), dashes, name, nearFlag(cmd, name), see)
	case errors.As(err, &missing):
		return errs.New(errs.Invalid, "--%s needs a value%s", missing.GetFlag().Name, see)
	case errors.As(err, &bad):
		return errs.New(errs.Invalid, "--%s %q: must be %s%s", bad.GetFlag().Name, bad.GetValue(), flagKind(bad.GetFlag()), see)
	}
	return errs.New(errs.Invalid, "a flag is not written as flags are%s", see)
}

// nearFlag suggests the flag that begins alike.
func nearFlag(cmd *cobra.Command, name string) string {
	near := ""
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if near == "" && len(name) > 2 && !f.Hidden && (strings.HasPrefix(f.Name, name) || strings.HasPrefix(name, f.Name)) {
			near = fmt.Sprintf(" (did you mean --%s?)", f.Name)
		}
	})
	return near
}

func flagKind(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return "true or false"
	case "duration":
		return "a duration such as 90s, 10m or 2h"
	case "int", "int32", "int64":
		return "a whole number"
	case "uint", "uint32", "uint64":
		return "a whole number, 0 or more"
	}
	return "a " + f.Value.Type()
}

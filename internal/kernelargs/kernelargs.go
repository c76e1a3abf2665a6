// Package kernelargs reads and checks the arguments that operators add to the
// kernel line of the ramdisk: those of a site (the configuration) and those of
// one node (its properties kernel_args and console).
//
// What it lets through may stand in an iPXE script and on a kernel line as it
// is: no blanks inside an argument, nothing that iPXE expands or joins
// commands with, nothing that looks like a secret, and no argument that is
// Ironring's own. All functions are pure.
//
// Start with Parse.
package kernelargs

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

// Names of the properties of a node.
const (
	Property        = "kernel_args" // "nomodeset mitigations=off"
	ConsoleProperty = "console"     // "ttyS1,115200n8"
)

// Bounds. Kernels of x86 take 2 047 characters in all, of which Ironring's own
// arguments need some 300 and the addresses of the peers the rest.
const (
	MaxArg   = 200 // characters of one argument
	MaxTotal = 512 // characters of all arguments of a site or a node
)

var (
	argument = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.,:/=@+-]*$`)
	console  = regexp.MustCompile(`^(tty(S|AMA|USB|MV|SC)?|hvc|netcon|ttynull)[0-9]{0,3}(,[0-9]{2,7}([noe]([5-8]r?)?)?)?$`)
	// Words in the name of an argument whose value nobody else should read.
	secret = regexp.MustCompile(`(?i)pass(w(or)?d|phrase)?$|passw|secret|token|credential|private|apikey|api_key`)
)

// own are the arguments that the boot service writes, and those with which an
// operator would make the kernel take another first program.
var own = []string{agentproto.LineBootIF, "initrd", "init", "rdinit", "root", "BOOT_IMAGE"}

// Parse splits a text at blanks and checks each argument.
func Parse(text string) ([]string, error) {
	if len(text) > MaxTotal {
		return nil, errs.New(errs.Invalid, "%d characters of kernel arguments, at most %d", len(text), MaxTotal)
	}
	args := strings.Fields(text)
	for _, a := range args {
		if err := check(a); err != nil {
			return nil, err
		}
	}
	return args, nil
}

func check(a string) error {
	if len(a) > MaxArg || !argument.MatchString(a) {
		return errs.New(errs.Invalid, "kernel argument %.40q: at most %d letters, digits and _.,:/=@+- are allowed, because iPXE or the kernel would read others in another way", a, MaxArg)
	}
	key, _, _ := strings.Cut(a, "=")
	if strings.HasPrefix(key, "ironring.") {
		return errs.New(errs.Invalid, "kernel argument %s is Ironring's own", key)
	}
	for _, o := range own {
		if key == o {
			return errs.New(errs.Invalid, "kernel argument %s is written by the boot service or decides what the ramdisk starts", key)
		}
	}
	if secret.MatchString(key) {
		return errs.New(errs.Invalid, "kernel argument %s looks like a secret: the kernel line is sent and shown in clear", key)
	}
	return nil
}

// Console checks the value of a console argument and gives the argument; "" for
// an empty value.
func Console(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	if !console.MatchString(value) {
		return "", errs.New(errs.Invalid, "console %.40q is not a console of the kernel like ttyS1,115200n8 or hvc0", value)
	}
	return "console=" + value, nil
}

// OfNode gives the arguments that a node's properties ask for, a JSON object.
// The console comes last: the last one is /dev/console.
func OfNode(properties []byte) ([]string, error) {
	var doc struct {
		Args    json.RawMessage `json:"kernel_args"`
		Console json.RawMessage `json:"console"`
	}
	if len(properties) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(properties, &doc); err != nil {
		return nil, errs.New(errs.Invalid, "properties are not a JSON object: %w", err)
	}
	text, err := word(Property, doc.Args)
	if err != nil {
		return nil, err
	}
	args, err := Parse(text)
	if err != nil {
		return nil, errs.About(errs.Invalid, "properties/"+Property, "properties/%s: %w", Property, err)
	}
	if text, err = word(ConsoleProperty, doc.Console); err != nil {
		return nil, err
	}
	c, err := Console(text)
	if err != nil {
		return nil, errs.About(errs.Invalid, "properties/"+ConsoleProperty, "properties/%s: %w", ConsoleProperty, err)
	}
	if c != "" {
		args = append(args, c)
	}
	return args, nil
}

// word reads a value that must be a string.
func word(name string, raw json.RawMessage) (s string, err error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	if json.Unmarshal(raw, &s) != nil {
		return "", errs.About(errs.Invalid, "properties/"+name, "properties/%s must be a string", name)
	}
	return s, nil
}

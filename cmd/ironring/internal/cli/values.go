package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strings"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
)

// maxValue bounds what is read from a file or standard input for one value.
const maxValue = 64 << 10

const valuesHelp = `Values are given as
  key=value        text
  key:=JSON        a number, true, false, null, an array or an object
  key=@FILE        the contents of a file, without its last line break
  key=-            standard input, for one key
  key=env:NAME     the environment variable NAME
  key:=@FILE, key:=- and key:=env:NAME   JSON from there
Keys that look like secrets (password, secret, token, private key), in an object
too, are taken from a file, standard input or the environment only: the command
line can be read by every user of the host.`

// values reads the key=value flags of one command. Standard input can be used
// once in it.
type values struct {
	f         *Factory
	usedStdin string
}

// parse gives the key and the JSON of one flag.
func (v *values) parse(flag, arg string) (key string, value json.RawMessage, err error) {
	key, text, ok := strings.Cut(arg, "=")
	if !ok || key == "" || key == ":" {
		// The argument itself is not shown: it may be a secret.
		return "", nil, errs.New(errs.Invalid, "--%s: not key=value", flag)
	}
	if k, isJSON := strings.CutSuffix(key, ":"); isJSON {
		value, err := v.json(flag, k, text)
		return k, value, err
	}
	if text == seal.Mask {
		return "", nil, errs.About(errs.Invalid, key, "--%s %s: %s is what is shown in the place of a secret; to keep the secret leave the key out", flag, key, seal.Mask)
	}
	text, read, err := v.from(flag, key, text)
	if err == nil && !read && seal.LooksSecret(key) {
		err = plainSecret(flag, key)
	}
	if err != nil {
		return "", nil, err
	}
	value, err = json.Marshal(text)
	return key, value, err
}

// json is the value of key:=text. Neither error shows the text: what is no JSON
// may be a secret as well.
func (v *values) json(flag, key, text string) (json.RawMessage, error) {
	text, read, err := v.from(flag, key, text)
	switch {
	case err != nil:
		return nil, err
	case !json.Valid([]byte(text)):
		return nil, errs.About(errs.Invalid, key, "--%s %s: not valid JSON", flag, key)
	case !read && seal.LooksSecret(key):
		return nil, plainSecret(flag, key)
	}
	if in := seal.SecretIn([]byte(text)); in != "" && !read {
		return nil, errs.About(errs.Invalid, key,
			"--%s %s: %s in it looks like a secret, and the command line can be read by every user of this host; give it as %s:=@FILE, %s:=- (standard input) or %s:=env:NAME",
			flag, key, in, key, key, key)
	}
	return json.RawMessage(text), nil
}

// from reads a value from where it is said to be: -, @FILE or env:NAME. read is
// false for one that was typed. key is "" for flags that have one value only.
func (v *values) from(flag, key, text string) (value string, read bool, err error) {
	what := strings.TrimSpace("--" + flag + " " + key)
	switch {
	case text == "-":
		if err := v.claimStdin(flag, key); err != nil {
			return "", true, err
		}
		value, err = readValue(v.f.In, what)
	case strings.HasPrefix(text, "@"):
		value, err = v.file(what, key, text[1:])
	case strings.HasPrefix(text, "env:"):
		name := text[len("env:"):]
		if value = v.f.Getenv(name); value == "" {
			err = errs.About(errs.Invalid, key, "%s: the environment variable %s is not set", what, name)
		}
	default:
		return text, false, nil
	}
	return value, true, err
}

func plainSecret(flag, key string) error {
	return errs.About(errs.Invalid, key,
		"--%s %s: looks like a secret, and the command line can be read by every user of this host; give it as %s=@FILE, %s=- (standard input) or %s=env:NAME",
		flag, key, key, key, key)
}

// claimStdin gives standard input to one value of the command.
func (v *values) claimStdin(flag, key string) error {
	name := key
	if key == "" {
		name = "--" + flag
	}
	if v.usedStdin != "" {
		return errs.About(errs.Invalid, key, "%s: standard input was read for %s already", strings.TrimSpace("--"+flag+" "+key), v.usedStdin)
	}
	v.usedStdin = name
	return nil
}

func (v *values) file(what, key, path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", errs.About(errs.Invalid, key, "%s: %w", what, err)
	}
	defer file.Close()
	return readValue(file, what)
}

// readValue reads a value to its end, without the line break that editors add.
func readValue(r io.Reader, what string) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxValue+1))
	if err != nil {
		return "", errs.New(errs.Invalid, "%s: %w", what, err)
	}
	if len(data) > maxValue {
		return "", errs.New(errs.Invalid, "%s: more than %d bytes", what, maxValue)
	}
	data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
	if len(data) == 0 {
		return "", errs.New(errs.Invalid, "%s: is empty", what)
	}
	return string(data), nil
}

// document makes a JSON object of flags; nil when there are none.
func (v *values) document(flag string, args []string) ([]byte, error) {
	if len(args) == 0 {
		return nil, nil
	}
	out := make(map[string]json.RawMessage, len(args))
	for _, a := range args {
		key, value, err := v.parse(flag, a)
		if err != nil {
			return nil, err
		}
		if _, twice := out[key]; twice {
			return nil, errs.About(errs.Invalid, key, "--%s %s: given twice", flag, key)
		}
		out[key] = value
	}
	return json.Marshal(out)
}

package drivers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/drivers/ipmi"
	"github.com/ironring/ironring/drivers/redfish"
	"github.com/ironring/ironring/internal/errs"
)

func registry(t *testing.T) *drivers.Registry {
	t.Helper()
	i, err1 := ipmi.New(ipmi.Config{})
	r, err2 := redfish.New(redfish.Config{})
	f, err3 := fake.New(fake.Config{})
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return drivers.NewRegistry(r, i, f)
}

func TestRegistry(t *testing.T) {
	r := registry(t)
	if got := strings.Join(r.Names(), ","); got != "fake,ipmi,redfish" {
		t.Errorf("names are %s", got)
	}
	if d, err := r.Get("ipmi"); err != nil || d.Name() != "ipmi" {
		t.Errorf("ipmi is %v, %v", d, err)
	}
	_, err := r.Get("ilo")
	if errs.KindOf(err) != errs.Invalid || err.Error() != `unknown driver "ilo", known are: fake, ipmi, redfish` {
		t.Errorf("the error is %v", err)
	}
	for key, want := range map[string]bool{
		"ipmi_password": true, "redfish_password": true, "fake_password": true, "snmp_auth_PASSWORD": true,
		"api_token": true, "ipmi_address": false, "redfish_verify_ca": false, "deploy_kernel": false,
	} {
		if r.Secret(key) != want {
			t.Errorf("secret %s is not %v", key, want)
		}
	}
}

func TestInfo(t *testing.T) {
	info := drivers.Info{"s": "x", "n": json.Number("12"), "f": 1.5, "i": 7.0, "b": true, "z": nil, "t": "42", "pw": "hunter2"}
	for key, want := range map[string]string{"s": "x", "n": "12", "f": "1.5", "z": "", "missing": ""} {
		if got, err := info.Text(key); got != want || err != nil {
			t.Errorf("%s is %q, %v", key, got, err)
		}
	}
	if _, err := info.Text("b"); errs.KindOf(err) != errs.Invalid || errs.SubjectOf(err) != "b" {
		t.Errorf("a boolean as text: %v", err)
	}
	for key, want := range map[string]int{"n": 12, "i": 7, "t": 42, "missing": 5, "z": 5} {
		if got, err := info.Int(key, 5, 0, 100); got != want || err != nil {
			t.Errorf("%s is %d, %v", key, got, err)
		}
	}
	for _, key := range []string{"f", "s", "b"} {
		if _, err := info.Int(key, 5, 0, 100); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s as a number: %v", key, err)
		}
	}
	if _, err := info.Int("t", 5, 0, 41); errs.KindOf(err) != errs.Invalid {
		t.Errorf("out of range: %v", err)
	}
	target := drivers.Target{Info: info}
	if text := fmt.Sprintf("%v %+v %#v %s", info, target, target, info); strings.Contains(text, "hunter2") {
		t.Errorf("a secret is printed: %s", text)
	}
}

// doner is a grant that says at once when it has ended.
type doner struct {
	*drivertest.Grant
	done chan struct{}
}

func (d doner) Done() <-chan struct{} { return d.done }

func TestBind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The deadline of the grant ends the context, unless it moves.
		g := drivertest.NewGrant(time.Second)
		ctx, stop, err := drivers.Bind(t.Context(), g)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(500*time.Millisecond, func() { g.Extend(2 * time.Second) })
		begin := time.Now()
		<-ctx.Done()
		if took := time.Since(begin); took != 2500*time.Millisecond {
			t.Errorf("ended after %v", took)
		}
		if err := drivers.Ended(ctx); errs.KindOf(err) != errs.Fenced {
			t.Errorf("ended by %v", err)
		}
		stop()

		// Its own end is noticed soon, that of a Doner at once.
		g = drivertest.NewGrant(time.Hour)
		ctx, stop, err = drivers.Bind(t.Context(), g)
		if err != nil {
			t.Fatal(err)
		}
		begin = time.Now()
		g.End()
		<-ctx.Done()
		if took := time.Since(begin); took > 50*time.Millisecond {
			t.Errorf("noticed after %v", took)
		}
		stop()
		d := doner{drivertest.NewGrant(time.Hour), make(chan struct{})}
		ctx, stop, err = drivers.Bind(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		begin = time.Now()
		close(d.done)
		<-ctx.Done()
		if took := time.Since(begin); took != 0 || errs.KindOf(drivers.Ended(ctx)) != errs.Fenced {
			t.Errorf("noticed after %v, %v", took, drivers.Ended(ctx))
		}
		stop()

		// The caller's own end is a time-out.
		parent, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ctx, stop, err = drivers.Bind(parent, drivertest.NewGrant(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		if err := drivers.Ended(ctx); errs.KindOf(err) != errs.Timeout || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended by %v", err)
		}
		stop()
		if _, _, err := drivers.Bind(parent, drivertest.NewGrant(time.Hour)); errs.KindOf(err) != errs.Timeout {
			t.Errorf("bound to a context that had ended: %v", err)
		}
		if _, _, err := drivers.Bind(t.Context(), nil); errs.KindOf(err) != errs.Fenced {
			t.Errorf("bound to nothing: %v", err)
		}
	})
}

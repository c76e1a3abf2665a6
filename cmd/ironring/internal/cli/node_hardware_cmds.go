package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

var sensorStates = map[api.Sensor_State]cell{
	api.Sensor_OK: {"ok", green}, api.Sensor_WARNING: {"warning", yellow}, api.Sensor_CRITICAL: {"critical", red}, api.Sensor_ABSENT: {"absent", ""},
}

func newBMCSensorsCmd(f *Factory) *cobra.Command {
	return newBMCReadCmd(f, "sensors", "Read the sensors", "Read temperatures, fans, voltages and power as the BMC has them now.",
		"  ironring node bmc sensors n1\n  ironring node bmc sensors n1 -o json", api.HardwarePart_HARDWARE_SENSORS,
		func(rep *api.GetHardwareReply) error {
			t := newTable("SENSOR", "KIND", "VALUE", "STATE", "CRITICAL BELOW", "CRITICAL ABOVE")
			for _, s := range rep.GetSensors() {
				value := strings.TrimSpace(optionalNumber(s.Value) + " " + s.GetUnit())
				if s.Value == nil {
					value = s.GetText()
				}
				state, ok := sensorStates[s.GetState()]
				if !ok {
					state.text = "unknown"
				}
				t.add(s.GetName(), s.GetKind(), value, state, optionalNumber(s.LowerCritical), optionalNumber(s.UpperCritical))
			}
			return f.printTable(t)
		})
}

func newBMCEventsCmd(f *Factory) *cobra.Command {
	return newBMCReadCmd(f, "events", "Read the event log", "Read the BMC's log of the hardware, oldest first; its clock may be wrong.",
		"  ironring node bmc events n1", api.HardwarePart_HARDWARE_EVENTS,
		func(rep *api.GetHardwareReply) error {
			t := newTable("ID", "TIME", "SEVERITY", "SENSOR", "EVENT")
			for _, e := range rep.GetEvents() {
				severity := cell{text: e.GetSeverity()}
				severity.color = map[string]string{"warning": yellow, "critical": red}[severity.text]
				t.add(e.GetId(), eventTime(e.GetAtMs()), severity, e.GetSensor(), e.GetText())
			}
			return f.printTable(t)
		})
}

func newBMCItemsCmd(f *Factory) *cobra.Command {
	return newBMCReadCmd(f, "inventory", "List the parts that the BMC knows",
		"List the parts that the BMC knows. What the agent found in the machine itself is\nin `ironring node inventory`.",
		"  ironring node bmc inventory n1", api.HardwarePart_HARDWARE_ITEMS,
		func(rep *api.GetHardwareReply) error {
			t := newTable("KIND", "NAME", "MODEL", "SERIAL", "VERSION", "SIZE", "HEALTH")
			for _, it := range rep.GetItems() {
				size := it.GetAddress()
				if it.GetBytes() > 0 {
					size = bytesText(float64(it.GetBytes()))
				}
				if it.GetCount() > 0 {
					size = fmt.Sprintf("%d x", it.GetCount())
				}
				t.add(it.GetKind(), it.GetName(), strings.TrimSpace(it.GetVendor()+" "+it.GetModel()), it.GetSerial(), it.GetVersion(), size, it.GetHealth())
			}
			return f.printTable(t)
		})
}

func newBMCClearEventsCmd(f *Factory) *cobra.Command {
	return newLosingCmd(f, "clear-events", "Empty the event log", "Empty the BMC's event log. It asks before, unless --yes is given.",
		"  ironring node bmc clear-events n1 --yes --wait", "the entries of the event log",
		&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_ClearEvents{ClearEvents: true}})
}

func newBMCNMICmd(f *Factory) *cobra.Command {
	return newLosingCmd(f, "nmi", "Interrupt the operating system for diagnosis",
		"Send a non-maskable interrupt, by which an operating system writes a dump and\nstops. It is sent once: where it is not known whether it arrived, the work fails.\nIt asks before, unless --yes is given.",
		"  ironring node bmc nmi n1 --yes --wait", "what runs on the machine: an NMI makes most systems stop",
		&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_Nmi{Nmi: true}})
}

// newLosingCmd is a change after which something is lost.
func newLosingCmd(f *Factory, name, short, long, example, loses string, req *api.ChangeHardwareRequest) *cobra.Command {
	b := &bmcChange{f: f, fleet: &fleet{f: f}}
	cmd := &cobra.Command{Use: name + " NODE...", Short: short, Long: long, Example: example, Args: cobra.ArbitraryArgs}
	cmd.RunE = f.with(func(ctx context.Context, c *client.Client, args []string) error {
		return b.run(ctx, c, cmd, args, name, loses, func() *api.ChangeHardwareRequest { return &api.ChangeHardwareRequest{Change: req.Change} })
	})
	b.register(cmd)
	return cmd
}

var indicatorNames = map[api.Indicator]string{api.Indicator_INDICATOR_OFF: "off", api.Indicator_INDICATOR_ON: "on", api.Indicator_INDICATOR_BLINKING: "blinking"}

func newBMCIndicatorCmd(f *Factory) *cobra.Command {
	return newStateCmd(f, stateCommand[api.Indicator]{
		name: "indicator", short: "Read or set the LED that shows a machine in its rack",
		long:    "Read or set the LED that shows a machine in its rack. A BMC that cannot blink\nlights it, and the other way round.",
		example: "  ironring node bmc indicator n1\n  ironring node bmc indicator n1 n2 blink --wait\n  ironring node bmc indicator n1 off",
		states:  map[string]api.Indicator{"on": api.Indicator_INDICATOR_ON, "off": api.Indicator_INDICATOR_OFF, "blink": api.Indicator_INDICATOR_BLINKING},
		part:    api.HardwarePart_HARDWARE_INDICATOR,
		show: func(rep *api.GetHardwareReply) error {
			return f.say(indicatorNames[rep.GetIndicator()])
		},
		request: func(s api.Indicator) *api.ChangeHardwareRequest {
			return &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_Indicator{Indicator: s}}
		},
	})
}

var bootModes = map[string]api.BootMode{"uefi": api.BootMode_BOOT_MODE_UEFI, "bios": api.BootMode_BOOT_MODE_BIOS}

func newBMCBootModeCmd(f *Factory) *cobra.Command {
	return newStateCmd(f, stateCommand[api.BootMode]{
		name: "boot-mode", short: "Read or set the firmware's boot mode",
		long:    "Read or set the mode of the boots to come. Deployments use the mode in the node's\nproperties/boot_mode; set both.",
		example: "  ironring node bmc boot-mode n1\n  ironring node bmc boot-mode n1 uefi --wait",
		states:  bootModes, part: api.HardwarePart_HARDWARE_BOOT,
		show: func(rep *api.GetHardwareReply) error {
			return f.say(enumText(rep.GetBootMode().String(), "BOOT_MODE_"))
		},
		request: func(s api.BootMode) *api.ChangeHardwareRequest {
			return &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_BootMode{BootMode: s}}
		},
	})
}

func newBMCSecureBootCmd(f *Factory) *cobra.Command {
	return newStateCmd(f, stateCommand[bool]{
		name: "secure-boot", short: "Read or set the firmware's Secure Boot switch",
		long:    "Read or set the firmware's Secure Boot switch. It takes effect at the next boot.",
		example: "  ironring node bmc secure-boot n1\n  ironring node bmc secure-boot n1 on --wait",
		states:  map[string]bool{"on": true, "off": false}, part: api.HardwarePart_HARDWARE_SECURE_BOOT,
		show: func(rep *api.GetHardwareReply) error {
			sb := rep.GetSecureBoot()
			onOff := map[bool]string{true: "on", false: "off"}
			return f.say(fmt.Sprintf("%s from the next boot on, %s in this one%s", onOff[sb.GetEnabled()], onOff[sb.GetActive()], prefixed(", keys in ", sb.GetMode())))
		},
		request: func(on bool) *api.ChangeHardwareRequest {
			return &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_SecureBoot{SecureBoot: on}}
		},
	})
}

var bootDevices = map[string]api.BootDevice{
	"none": api.BootDevice_BOOT_DEVICE_NONE, "pxe": api.BootDevice_BOOT_DEVICE_PXE, "disk": api.BootDevice_BOOT_DEVICE_DISK, "cdrom": api.BootDevice_BOOT_DEVICE_CDROM,
}

func newBMCBootDeviceCmd(f *Factory) *cobra.Command {
	change := &api.BootDeviceChange{}
	var mode string
	cmd := newStateCmd(f, stateCommand[api.BootDevice]{
		name: "boot-device", short: "Read or set what a machine boots from",
		long:    "Read or set what a machine boots from: at the next boot only, or at all to come\n(--persistent). none leaves it to the firmware. Deployments set it themselves.",
		example: "  ironring node bmc boot-device n1\n  ironring node bmc boot-device n1 pxe --wait\n  ironring node bmc boot-device n1 disk --persistent --mode uefi",
		states:  bootDevices, part: api.HardwarePart_HARDWARE_BOOT,
		show: func(rep *api.GetHardwareReply) error {
			return f.say(enumText(rep.GetBootDevice().String(), "BOOT_DEVICE_"))
		},
		request: func(d api.BootDevice) *api.ChangeHardwareRequest {
			change.Mode = bootModes[mode]
			return &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_BootDevice{
				BootDevice: &api.BootDeviceChange{Device: d, Persistent: change.Persistent, Mode: change.Mode},
			}}
		},
	})
	cmd.Flags().BoolVar(&change.Persistent, "persistent", false, "for all boots to come")
	cmd.Flags().StringVar(&mode, "mode", "", "`MODE` to boot in, uefi or bios; default: as the node's boot_mode says")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if _, ok := bootModes[mode]; !ok && mode != "" {
			return errs.About(errs.Invalid, "mode", "--mode %q: must be uefi or bios", mode)
		}
		return nil
	}
	return cmd
}

func newBMCMediaCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use: "media", Short: "See, insert and eject virtual media", Long: "Virtual media are images that the BMC fetches by HTTP and shows to the machine as a\ndisc or a stick.",
		Example: "  ironring node bmc media list n1\n  ironring node bmc media insert n1 http://images/rescue.iso --wait\n  ironring node bmc media eject n1",
	}
	list := newBMCReadCmd(f, "list", "List the slots", "List the slots and what is in them.", "  ironring node bmc media list n1", api.HardwarePart_HARDWARE_MEDIA,
		func(rep *api.GetHardwareReply) error {
			t := newTable("SLOT", "TYPES", "IMAGE")
			for _, m := range rep.GetMedia() {
				image := "empty"
				if m.GetInserted() {
					image = m.GetImage()
				}
				t.add(m.GetSlot(), strings.Join(m.GetTypes(), ", "), image)
			}
			return f.printTable(t)
		})
	insert, eject := &bmcChange{f: f, fleet: &fleet{f: f}}, &bmcChange{f: f, fleet: &fleet{f: f}}
	var slot, from string
	ins := &cobra.Command{
		Use: "insert NODE... URL", Short: "Insert an image", Long: `Insert an image. What is in the slot is ejected before.

A URL with a user, a password or a signature is refused: it would be stored, and
the BMC shows it to whoever reads its media.`,
		Example: "  ironring node bmc media insert n1 http://images/rescue.iso --slot Cd --wait", Args: cobra.MinimumNArgs(1),
	}
	ins.RunE = f.with(func(ctx context.Context, c *client.Client, args []string) error {
		last := len(args) - 1
		req := func() *api.ChangeHardwareRequest {
			return &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_InsertMedia{InsertMedia: &api.MediaChange{Slot: slot, Image: args[last]}}}
		}
		if _, err := node.HardwareStep(req()); err != nil {
			return err // a secret in the URL is not even sent
		}
		return insert.run(ctx, c, ins, args[:last], "insert media", "", req)
	})
	ins.Flags().StringVar(&slot, "slot", "", "`NAME` of the slot; default: the first for a disc")
	insert.register(ins)
	ej := &cobra.Command{
		Use: "eject NODE...", Short: "Empty a slot", Long: "Empty a slot; an empty one is no error.",
		Example: "  ironring node bmc media eject n1 --wait", Args: cobra.ArbitraryArgs,
	}
	ej.RunE = f.with(func(ctx context.Context, c *client.Client, args []string) error {
		return eject.run(ctx, c, ej, args, "eject media", "", func() *api.ChangeHardwareRequest {
			return &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_EjectMedia{EjectMedia: from}}
		})
	})
	ej.Flags().StringVar(&from, "slot", "", "`NAME` of the slot; default: the first for a disc")
	eject.register(ej)
	cmd.AddCommand(list, ins, ej)
	return cmd
}

func newBMCAcceptCmd(f *Factory) *cobra.Command {
	var fingerprint string
	cmd := &cobra.Command{
		Use: "accept-certificate NODE", Short: "Trust another certificate of the BMC",
		Long: `Trust another certificate of the BMC, where the node has redfish_tls_trust=first-use.

A BMC whose certificate has changed gets no call until this is done, since the
password might go to somebody else. Compare the fingerprint with what the BMC shows
at its own console. With redfish_tls_pin, set the pin instead.`,
		Example: "  ironring node bmc accept-certificate n1 --fingerprint sha256:9f86d0...",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			rep, err := c.AcceptBmcCertificate(ctx, &api.AcceptBmcCertificateRequest{Node: args[0], Fingerprint: fingerprint})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				return f.say(fmt.Sprintf("the BMC of node %s is trusted by %s", node.Label(rep.GetNode()), rep.GetNode().GetBmcTls().GetFingerprint()))
			})
		}),
	}
	cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "`sha256:HEX` of the certificate that is right")
	if err := cmd.MarkFlagRequired("fingerprint"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

// say prints one line.
func (f *Factory) say(text string) error {
	_, err := fmt.Fprintln(f.Out, oneLine(text))
	return err
}

// enumText is the name of an enumeration's value as people write it.
func enumText(name, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(name, prefix))
}

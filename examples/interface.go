// Attaches to a network as a VM program does, in plain varlink and with the standard library only: prints what it got, and
// has the TAP until stdin ends. Usage: go run interface.go SOCKET NETWORK. The contract is docs/protocol.md.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"syscall"
)

type object = map[string]any

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// call returns the answer's parameters, and the fds that came with it, which are the caller's to close.
func call(broker *net.UnixConn, method string, parameters object) (answer object, fds []int) {
	request := must(json.Marshal(object{"method": "org.vmnet.Broker." + method, "parameters": parameters}))
	must(broker.Write(append(request, 0)))
	var message []byte
	for data, control := make([]byte, 65536), make([]byte, 256); !bytes.HasSuffix(message, []byte{0}); {
		size, controlSize, _, _, err := broker.ReadMsgUnix(data, control)
		if must(size, err) == 0 {
			log.Fatal("the broker closed the connection")
		}
		message = append(message, data[:size]...)
		for _, one := range must(syscall.ParseSocketControlMessage(control[:controlSize])) {
			fds = append(fds, must(syscall.ParseUnixRights(&one))...)
		}
	}
	must(0, json.Unmarshal(message[:len(message)-1], &answer))
	if answer["error"] != nil {
		log.Fatal(answer["error"], ": ", answer["parameters"].(object)["reason"])
	}
	return answer["parameters"].(object), fds
}

func main() {
	broker := must(net.DialUnix("unix", nil, &net.UnixAddr{Name: os.Args[1], Net: "unix"}))
	acquired, _ := call(broker, "AcquireNetwork", object{"network": os.Args[2]})
	created, fds := call(broker, "CreateInterface", object{"network": os.Args[2]})
	network, index := acquired["network"].(object), created["queues"].([]any)[0].(float64)
	tap := os.NewFile(uintptr(fds[int(index)]), "tap") // for exec.Cmd.ExtraFiles, of which the first is fd 3
	fmt.Printf("network=%v mode=%v gateway=%v mtu=%v\n", network["name"], network["mode"], network["gateway"], network["mtu"])
	fmt.Printf("interface=%v mac=%v address=%v fd=%d\n", created["interfaceName"], created["mac"], created["address"], tap.Fd())
	io.Copy(io.Discard, os.Stdin) // the interface is gone when the last copy of the fd is closed
}

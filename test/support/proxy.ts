import { createServer, request as forward, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect, type AddressInfo, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { onTestFinished } from 'vitest'

/** A proxy as companies have it, which knows names that nobody else does. */
export interface TestProxy {
  readonly url: string
  /** What it was asked for, in turn: `CONNECT host:port`, or the method and the address. */
  readonly asked: readonly string[]
  /** The `proxy-authorization` of each. */
  readonly opened: readonly (string | undefined)[]
}

/**
 * Starts one that leads each name to the loopback port given for it.
 *
 * @param options `refuses`: the status of its answer to all that it is asked; `isSilent`: it takes requests and says nothing
 */
export async function useProxy(
  ports: Readonly<Record<string, number>>,
  options: { readonly refuses?: number; readonly isSilent?: boolean } = {},
): Promise<TestProxy> {
  const asked: string[] = []
  const opened: (string | undefined)[] = []
  const sockets = new Set<Duplex>()
  const note = (what: string, { headers }: IncomingMessage): void => {
    asked.push(what)
    opened.push(headers['proxy-authorization'])
  }
  const server = createServer((request, response) => {
    note(`${request.method} ${request.url}`, request)
    if (options.refuses !== undefined) response.writeHead(options.refuses).end()
    else passOn(request, response, ports)
  })
  server.on('connect', (request: IncomingMessage, socket: Duplex) => {
    note(`CONNECT ${request.url}`, request)
    sockets.add(socket)
    socket.on('error', () => {})
    if (options.isSilent) return
    if (options.refuses === undefined) sockets.add(tunnel(socket, portIn(ports, `http://${request.url}`)))
    else socket.end(`HTTP/1.1 ${options.refuses} No\r\n\r\n`)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
    for (const socket of sockets) socket.destroy()
  })
  return { url: `http://127.0.0.1:${portOf(server.address())}`, asked, opened }
}

function tunnel(socket: Duplex, port: number): Socket {
  const onward = connect(port, '127.0.0.1', () => {
    socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
    onward.pipe(socket).pipe(onward)
  })
  onward.on('error', () => socket.destroy())
  socket.on('close', () => onward.destroy())
  return onward
}

function passOn(request: IncomingMessage, response: ServerResponse, ports: Readonly<Record<string, number>>): void {
  const { method, headers, url = '' } = request
  const { pathname, search } = new URL(url)
  const onward = forward({ host: '127.0.0.1', port: portIn(ports, url), method, headers, path: pathname + search })
  onward.on('response', (answer) => answer.pipe(response.writeHead(answer.statusCode ?? 502, answer.headers)))
  onward.on('error', () => response.destroy())
  request.pipe(onward)
}

function portIn(ports: Readonly<Record<string, number>>, url: string): number {
  const port = ports[new URL(url).hostname]
  if (port === undefined) throw new Error(`the proxy knows no ${url}`)
  return port
}

export function portOf(address: string | AddressInfo | null): number {
  if (typeof address !== 'object' || address === null) throw new Error('a server that listens on TCP has a port')
  return address.port
}

import { randomInt } from 'node:crypto'
import { createServer, type Server } from 'node:net'

/** A loopback port that was free a moment ago. Another process may still win it: callers retry. */
export async function findFreePort(): Promise<number> {
  const [port] = await findFreePorts(1)
  if (port === undefined) throw new Error('No free loopback port was found.')
  return port
}

/** Different free loopback ports: all are held open until the last one is known. */
export async function findFreePorts(count: number): Promise<readonly number[]> {
  const servers = await Promise.all(Array.from({ length: count }, () => openServer()))
  const ports = servers.map(portOf)
  await Promise.all(servers.map(closeServer))
  return ports
}

/** The first port that an ordinary user may take and few programs do. */
const LOWEST = 20_000
const TRIES = 500

/** Different loopback ports that are free and below a bound; `findFreePorts` gives such as the system likes, high ones. */
export async function findFreePortsBelow(bound: number, count: number): Promise<readonly number[]> {
  const servers = new Map<number, Server>()
  for (let tried = 0; servers.size < count; tried += 1) {
    if (tried === TRIES) throw new Error(`No ${count} free loopback ports were found below ${bound}.`)
    const port = randomInt(LOWEST, bound)
    const server = servers.has(port) ? undefined : await openServer(port).catch(() => undefined)
    if (server) servers.set(port, server)
  }
  await Promise.all(Array.from(servers.values(), closeServer))
  return [...servers.keys()]
}

function openServer(port = 0): Promise<Server> {
  const server = createServer()
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => resolve(server))
  })
}

function portOf(server: Server): number {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('A listening server has no port.')
  return address.port
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()))
}

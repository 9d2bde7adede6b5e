import { readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { findFreePorts } from './free-port.ts'
import { writePrivateFile } from './stack-state.ts'

/** What people open in a browser. */
export interface StackPorts {
  readonly api: number
  readonly temporalUi: number
}

/** The ports of this data folder's last stack as far as they are free, so that its links lead somewhere again. */
export async function choosePorts(dataDir: string): Promise<StackPorts> {
  const path = join(dataDir, 'ports.json')
  const [api = 0, temporalUi = 0] = await findFreePorts(2)
  const before = await readPorts(path)
  const ports = { api: await orElse(before?.api, api), temporalUi: await orElse(before?.temporalUi, temporalUi) }
  await writePrivateFile(path, JSON.stringify(ports))
  return ports
}

async function readPorts(path: string): Promise<StackPorts | undefined> {
  try {
    const ports: unknown = JSON.parse(await readFile(path, 'utf8'))
    if (typeof ports !== 'object' || ports === null || !('api' in ports) || !('temporalUi' in ports)) return undefined
    return { api: Number(ports.api), temporalUi: Number(ports.temporalUi) }
  } catch {
    return undefined // there was no stack here yet
  }
}

async function orElse(port: number | undefined, other: number): Promise<number> {
  return port !== undefined && (await isPortFree(port)) ? port : other
}

/** Whether a loopback port can be listened on at this moment. */
export function isPortFree(port: number): Promise<boolean> {
  const server = createServer()
  return new Promise((resolve) => {
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

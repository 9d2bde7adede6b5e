import { connect, createServer, type Socket } from 'node:net'

export interface CableOptions {
  readonly targetHost: string
  readonly targetPort: number
}

/** A loopback port that leads to another server and can be unplugged, to see what a lost network does. */
export interface Cable {
  readonly port: number
  /** `127.0.0.1:port`, to give to clients in place of the target's address. */
  readonly address: string
  /** No byte passes any more in either direction, and no end of a connection either; connections stay open. */
  unplug(): void
  /** Everything passes again, beginning with what was sent meanwhile. */
  plug(): void
  /** Drops every connection together with what was sent while unplugged; new connections are accepted. */
  cut(): void
  stop(): Promise<void>
}

interface Line {
  readonly near: Socket
  readonly far: Socket
}

/** Starts a cable to a server. The target need not listen yet: a connection ends when its far side cannot be made. */
export async function startCable(options: CableOptions): Promise<Cable> {
  const lines = new Set<Line>()
  let plugged = true
  const isPlugged = () => plugged

  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (near) => {
    const far = connect({ host: options.targetHost, port: options.targetPort, allowHalfOpen: true })
    const line = { near, far }
    lines.add(line)
    joinSockets(line, isPlugged)
    const forget = () => {
      if (near.destroyed && far.destroyed) lines.delete(line)
    }
    near.once('close', forget)
    far.once('close', forget)
    if (plugged) resume(line)
    else pause(line)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('A listening server has no port.')

  const cut = () => {
    for (const { near, far } of lines) {
      near.destroy()
      far.destroy()
    }
  }
  return {
    port: address.port,
    address: `127.0.0.1:${address.port}`,
    unplug: () => {
      plugged = false
      for (const line of lines) pause(line)
    },
    plug: () => {
      plugged = true
      for (const line of lines) resume(line)
    },
    cut,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        cut()
      }),
  }
}

function joinSockets({ near, far }: Line, isPlugged: () => boolean): void {
  for (const [source, target] of [
    [near, far],
    [far, near],
  ] as const) {
    source.on('data', (chunk) => {
      if (!target.write(chunk)) source.pause()
    })
    target.on('drain', () => {
      if (isPlugged()) source.resume()
    })
    source.on('end', () => target.end())
    source.on('error', () => source.destroy()) // its peer learns of it by the close
    source.on('close', () => {
      if (isPlugged()) target.destroy()
    })
  }
}

function pause({ near, far }: Line): void {
  near.pause()
  far.pause()
}

function resume({ near, far }: Line): void {
  if (near.destroyed || far.destroyed) {
    near.destroy()
    far.destroy()
    return
  }
  near.resume()
  far.resume()
}

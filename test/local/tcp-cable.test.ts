import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type Cable, startCable } from '#local/tcp-cable.ts'
import { pollUntil } from '../support/poll.ts'

describe('a cable to a server', () => {
  it('passes bytes both ways', async () => {
    const { cable } = await startEcho()
    const client = await open(cable)

    client.socket.write('hello')

    await pollUntil(() => client.received() === 'hello', { what: 'the echo' })
  })

  it('holds bytes back while unplugged, keeps the connection open, and delivers them when plugged', async () => {
    const { cable, received } = await startEcho()
    const client = await open(cable)
    client.socket.write('one ')
    await pollUntil(() => client.received() === 'one ', { what: 'the first echo' })

    cable.unplug()
    client.socket.write('two ')
    await expectNever(() => received() !== 'one ')
    expect(client.socket.readyState).toBe('open')
    cable.plug()

    await pollUntil(() => client.received() === 'one two ', { what: 'what was held back' })
  })

  it('holds an answer of the server back too', async () => {
    const { cable, broadcast } = await startEcho()
    const client = await open(cable)
    client.socket.write('x')
    await pollUntil(() => client.received() === 'x', { what: 'the first echo' })

    cable.unplug()
    broadcast('answer')
    await expectNever(() => client.received() !== 'x')
    cable.plug()

    await pollUntil(() => client.received() === 'xanswer', { what: 'the answer' })
  })

  it('passes nothing of a connection that was made while unplugged until it is plugged', async () => {
    const { cable, received } = await startEcho()
    cable.unplug()
    const client = await open(cable)
    client.socket.write('early')
    await expectNever(() => received() !== '')

    cable.plug()

    await pollUntil(() => client.received() === 'early', { what: 'the echo' })
  })

  it('drops what it held back when it is cut, and serves new connections', async () => {
    const { cable, received } = await startEcho()
    const lost = await open(cable)
    lost.socket.write('a')
    await pollUntil(() => received() === 'a', { what: 'the first byte' })

    cable.unplug()
    lost.socket.write('lost')
    lost.socket.destroy()
    cable.cut()
    cable.plug()
    const next = await open(cable)
    next.socket.write('b')

    await pollUntil(() => next.received() === 'b', { what: 'the echo of the new connection' })
    expect(received()).toBe('ab')
  })

  it('passes the end of a connection on', async () => {
    const { cable, connections } = await startEcho()
    const client = await open(cable)
    await pollUntil(() => connections() === 1, { what: 'the connection' })

    client.socket.end()

    await pollUntil(() => connections() === 0, { what: 'its end' })
  })
})

interface Echo {
  readonly cable: Cable
  /** Everything the server has received, over all connections. */
  readonly received: () => string
  readonly connections: () => number
  readonly broadcast: (text: string) => void
}

async function startEcho(): Promise<Echo> {
  const sockets = new Set<Socket>()
  let received = ''
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('data', (chunk) => {
      received += chunk.toString()
      socket.write(chunk)
    })
    socket.on('error', () => socket.destroy())
    socket.on('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const cable = await startCable({ targetHost: '127.0.0.1', targetPort: address.port })
  onTestFinished(async () => {
    await cable.stop()
    server.close()
  })
  return {
    cable,
    received: () => received,
    connections: () => sockets.size,
    broadcast: (text) => {
      for (const socket of sockets) socket.write(text)
    },
  }
}

async function open(cable: Cable) {
  const socket = connect(cable.port, '127.0.0.1')
  let received = ''
  socket.on('data', (chunk) => {
    received += chunk.toString()
  })
  socket.on('error', () => socket.destroy())
  await once(socket, 'connect')
  onTestFinished(() => void socket.destroy())
  return { socket, received: () => received }
}

/** Loopback delivers within a millisecond: what has not come after this time is held back. */
async function expectNever(happened: () => boolean): Promise<void> {
  await expect(pollUntil(happened, { what: 'nothing', deadlineMs: 200, intervalMs: 10 })).rejects.toThrow('nothing')
}

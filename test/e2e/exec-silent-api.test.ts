import { connect, createServer } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { portOf } from '../support/proxy.ts'
import { startPurser } from './command.ts'
import { createExecWorld } from './exec-world.ts'

const SETTLE_MS = 30_000

interface Line {
  readonly url: string
  /** What was sent and not handed on. */
  readonly unheard: () => string
  /** From now on nothing is handed on, and connections stay open: as of a machine that hangs. */
  fallSilent(): void
}

/** A line to an API that can go dead without being cut. */
async function layLine(apiUrl: string): Promise<Line> {
  const { hostname, port } = new URL(apiUrl)
  let isSilent = false
  let unheard = ''
  const server = createServer((near) => {
    const far = connect(Number(port), hostname)
    near.on('data', (sent) => (isSilent ? (unheard += sent.toString('latin1')) : far.write(sent)))
    far.on('data', (sent) => isSilent || near.write(sent))
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on('error', () => other.destroy())
      one.on('close', () => other.destroy())
    }
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  return {
    url: `http://127.0.0.1:${portOf(server.address())}`,
    unheard: () => unheard,
    fallSilent: () => void (isSilent = true),
  }
}

test('a run that is not opened is not waited for after Ctrl-C, and its command is not started', async () => {
  const world = await createExecWorld()
  const line = await layLine(world.url)
  line.fallSilent()
  const run = startPurser(['exec', '--budget', '0.5', '--', 'echo', 'started'], {
    env: { ...world.env, PURSER_URL: line.url },
  })
  await pollUntil(() => line.unheard().includes('/runs/external'), { what: 'it asks', deadlineMs: SETTLE_MS })
  run.process.kill('SIGINT')
  expect(await run.ended).toMatchObject({
    code: 'SIGINT',
    out: '',
    err: `purser exec: ${line.url} has not answered. A run that it opens all the same ends once it has been idle.\n`,
  })
})

test('a run that cannot be ended is not waited for after Ctrl-C: it ends because it is idle', async () => {
  const world = await createExecWorld()
  const line = await layLine(world.url)
  const waits = 'process.on("SIGINT", () => process.exit(5)); setTimeout(() => {}, 60_000); console.log("ready")'
  const command = ['exec', '--budget', '0.5', '--idle', '3', '--', process.execPath, '-e', waits]
  const run = startPurser(command, { env: { ...world.env, PURSER_URL: line.url } })
  await pollUntil(() => run.output.out.includes('ready'), { what: 'it is there', deadlineMs: SETTLE_MS })
  line.fallSilent()
  run.process.kill('SIGINT')
  await pollUntil(() => /POST \S+\/end /.test(line.unheard()), { what: 'it is to be ended', deadlineMs: SETTLE_MS })
  run.process.kill('SIGINT')
  const { id } = await world.theRun()
  expect(await run.ended).toMatchObject({
    code: 5,
    err: `purser exec: Run ${id} could not be ended; it ends by itself once it has been idle. It was not waited for any longer.\n`,
  })
  expect(await world.theEnd()).toMatchObject({ state: 'partial', reason: 'idle' })
})

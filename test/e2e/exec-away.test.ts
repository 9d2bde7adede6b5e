import { createServer } from 'node:http'
import { startCable } from '#local/tcp-cable.ts'
import { expect, onTestFinished, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { listen } from '../support/upstream.ts'
import { startPurser } from './command.ts'
import { createExecWorld } from './exec-world.ts'

const SETTLE_MS = 30_000

/** An API behind a cable that can be unplugged: then it takes connections, and says nothing. */
async function createFarWorld() {
  const world = await createExecWorld()
  const { hostname, port } = new URL(world.url)
  const cable = await startCable({ targetHost: hostname, targetPort: Number(port) })
  onTestFinished(() => cable.stop())
  return { world, cable, env: { ...world.env, PURSER_URL: `http://${cable.address}` } }
}

test('an API that says nothing any more keeps nobody who does not want to wait, and the code is the command’s', async () => {
  const { world, cable, env } = await createFarWorld()
  const program = 'process.on("SIGUSR2", () => process.exit(4)); setInterval(() => {}, 1_000); console.log(process.pid)'
  const command = ['exec', '--budget', '0.5', '--idle', '1', '--', process.execPath, '-e', program]
  const run = startPurser(command, { env })
  await pollUntil(() => run.output.out !== '', { what: run.output.err, deadlineMs: SETTLE_MS })
  cable.unplug()
  const child = Number(run.output.out)
  process.kill(child, 'SIGUSR2')
  await pollUntil(() => !isAlive(child), { what: 'the command is over', deadlineMs: SETTLE_MS })
  run.process.kill('SIGTERM')
  expect(await run.ended).toMatchObject({
    code: 4,
    err: expect.stringMatching(/could not be ended; it ends by itself .* SIGTERM came meanwhile\.\n.*purser report/),
  })
  expect(await world.theEnd()).toMatchObject({ state: 'partial', reason: 'idle' })
})

test('a signal while a run is being opened starts nothing, and waits for no answer that never comes', async () => {
  let asked = 0
  const silent = createServer(() => (asked += 1))
  const url = (await listen(silent)).replace('/v1', '')
  onTestFinished(() => silent.closeAllConnections())
  const env = { PURSER_URL: url, PURSER_KEY: `purser_pk_${'x'.repeat(43)}` }
  const run = startPurser(['exec', '--budget', '0.5', '--', 'echo', 'started'], { env })
  await pollUntil(() => asked > 0, { what: 'it asks', deadlineMs: SETTLE_MS })
  run.process.kill('SIGTERM')
  expect(await run.ended).toMatchObject({ code: 1, out: '', err: expect.stringContaining('SIGTERM came meanwhile.') })
})

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

import { readFile, realpath, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { checkout, startCommand, startPurser } from './command.ts'
import { createExecWorld } from './exec-world.ts'
import { openTerminal, quoted } from './terminal.ts'

const QUESTION = '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?'
const SETTLE_MS = 30_000

const tellsSchema = z.object({ pid: z.int(), parent: z.int(), key: z.string() })

/** A program that asks once for each line of its last argument, each with so many output tokens, and says what it got. */
async function writeAsker(): Promise<string> {
  const file = join(await useScratchFolder(), 'ask.mjs')
  const openai = fileURLToPath(import.meta.resolve('openai'))
  await writeFile(
    file,
    `import OpenAI from ${JSON.stringify(openai)}
const client = new OpenAI({ maxRetries: 0 })
const messages = [{ role: 'user', content: ${JSON.stringify(QUESTION)} }]
for (const tokens of process.argv.slice(2)) {
  for (let left = 60; ; left -= 1) {
    try {
      const { choices } = await client.chat.completions.create({ model: process.env.OPENAI_MODEL, messages, max_tokens: Number.parseInt(tokens) })
      console.log('answered', choices[0].message.content)
      break
    } catch (error) {
      console.log('refused', error.status, error.code)
      if (!tokens.endsWith('!') || left === 0) break
      await new Promise((resolve) => setTimeout(resolve, 500))
    }
  }
}
`,
  )
  return file
}

const launcher = join(checkout, 'src/cli/purser.js')
const exec = (...command: readonly string[]) => ['exec', '--budget', '0.5', '--', ...command]

test('a command runs in the folder of its caller, and ends with its own code or signal', async () => {
  const { env, db, theEnd } = await createExecWorld()
  const folder = await realpath(await useScratchFolder())
  const pwd = await startPurser(exec('pwd'), { env, cwd: folder }).ended
  expect(pwd).toMatchObject({ code: 0, out: `${folder}\n` })
  expect(pwd.err).toMatch(
    /Cost report[\s\S]*direct USD +0\.500000 +– +0\.500000[\s\S]*: completed, Ended by its owner\./,
  )
  expect(await theEnd()).toMatchObject({ state: 'completed', input: { name: 'pwd' } })
  const fromNpm = await startPurser(exec('pwd'), { env: { ...env, INIT_CWD: folder }, cwd: checkout }).ended
  expect(fromNpm).toMatchObject({ code: 0, out: `${folder}\n` })
  const stale = await startPurser(exec('pwd'), { env: { ...env, INIT_CWD: '/' }, cwd: folder }).ended
  expect(stale).toMatchObject({ code: 0, out: `${folder}\n` })
  for (const [script, code] of [
    ['exit 7', 7],
    ['kill -TERM $$', 'SIGTERM'],
    ['kill -KILL $$', 'SIGKILL'],
    ['kill -USR1 $$', 138],
  ] as const) {
    const end = await startPurser(exec('sh', '-c', script), { env, cwd: folder }).ended
    expect(end, script).toMatchObject({ code, err: expect.not.stringContaining('Debugger') })
  }
  const missing = await startPurser(exec('no-such-command'), { env }).ended
  expect(missing).toMatchObject({ code: 127, err: expect.stringContaining('There is no command no-such-command.') })
  for (const program of [folder, '/etc/passwd/under-a-file', `/${'x'.repeat(300)}`]) {
    const unfit = await startPurser(exec(program), { env }).ended
    expect(unfit).toMatchObject({ code: 126, err: expect.stringContaining(`${program} could not be started`) })
  }
  const gone = ['sh', '-c', 'cd "$(mktemp -d)" && rmdir "$PWD" && exec "$@"', 'sh', process.execPath, launcher]
  expect(await startCommand([...gone, ...exec('echo', 'started')], { env }).ended).toMatchObject({
    code: 0,
    out: 'started\n',
  })
  await pollUntil(
    async () => (await db.selectFrom('run').select('state').execute()).every(({ state }) => state === 'completed'),
    { what: 'all runs are completed', deadlineMs: SETTLE_MS },
  )
})

test('signals reach the command: it decides how it ends, and the run ends with it', async () => {
  const { env, theEnd } = await createExecWorld()
  const waits =
    'process.on("SIGTERM", () => process.exit(5)); process.on("SIGUSR1", () => process.exit(6)); setTimeout(() => {}, 60_000); console.log("ready")'
  for (const [signal, code] of [
    ['SIGTERM', 5],
    ['SIGUSR1', 6],
    ['SIGUSR2', 'SIGUSR2'],
    ['SIGINT', 'SIGINT'],
  ] as const) {
    const run = startPurser(exec(process.execPath, '-e', waits), { env })
    await pollUntil(() => run.output.out.includes('ready'), { what: run.output.err, deadlineMs: SETTLE_MS })
    run.process.kill(signal)
    expect(await run.ended, signal).toMatchObject({
      code,
      err: expect.stringContaining('completed, Ended by its owner.'),
    })
  }
  expect(await theEnd()).toMatchObject({ state: 'completed' })
})

test('an OpenAI client spends from the envelope until that is empty; the report says so, and the books are right', async () => {
  const world = await createExecWorld()
  const asker = await writeAsker()
  const options = ['exec', '--budget', '0.001', '--model', 'steady', '--', process.execPath]
  const end = await startPurser([...options, asker, '100', '4000', '100'], { env: world.env }).ended
  const answered = expect.stringMatching(/^answered .*1711/)
  expect(end.out.trim().split('\n')).toEqual([answered, 'refused 402 insufficient_quota', answered])
  expect(end.code).toBe(0)
  expect(
    end.err.match(/The direct pocket is used up: a request needs 0\.00\d+ USD, 0\.000\d+ USD are free\./g),
  ).toHaveLength(1)
  expect(end.err).toMatch(/v1\/\S+ +1 steady[\s\S]*hold of 0\.00\d+ refused by the pocket/)
  expect(await world.theEnd()).toMatchObject({ state: 'completed', model: 'steady', onExhausted: 'refuse' })
  await expectVerified(world)
})

test('a limit that is used up is told as one, with what helps; money that ends besides is told too', async () => {
  const { env, theRun } = await createExecWorld()
  const asker = await writeAsker()
  const options = ['exec', '--credit', '0.0001', '--max-tokens', '150', '--model', 'research', '--', process.execPath]
  const end = await startPurser([...options, asker, '200', '4000', '200'], { env }).ended
  const refused = 'refused 402 insufficient_quota'
  expect(end.out.trim().split('\n')).toEqual([refused, refused, refused])
  expect(end.err.match(/The \S+ \S+ is used up: .*/g)?.toSorted()).toEqual([
    expect.stringMatching(
      new RegExp(
        `^The credit pocket .* Requests are refused until: purser top-up ${(await theRun()).id} --credit AMOUNT$`,
      ),
    ),
    expect.stringMatching(
      /^The run limit .* needs \d+ tokens, 150 tokens are free\. More money does not help: the limit /,
    ),
  ])
})

test('when purser itself is killed, the run ends because it is idle, and the key of the command opens nothing', async () => {
  const world = await createExecWorld()
  const file = join(await useScratchFolder(), 'told.json')
  const tells =
    'require("node:fs").writeFileSync(process.argv[1], JSON.stringify({ pid: process.pid, parent: process.ppid, key: process.env.OPENAI_API_KEY })); setTimeout(() => {}, 60_000)'
  const options = ['exec', '--budget', '0.5', '--idle', '3', '--', process.execPath, '-e', tells, file]
  const run = startPurser(options, { env: world.env })
  const told = await pollUntil(async () => tellsSchema.parse(JSON.parse(await readFile(file, 'utf8'))), {
    what: 'the command is there',
    deadlineMs: SETTLE_MS,
  })
  const { pid, parent, key } = told
  onTestFinished(() => void process.kill(pid, 'SIGKILL'))
  process.kill(parent, 'SIGKILL')
  await pollUntil(() => run.process.signalCode === 'SIGKILL', { what: 'the launcher ends like what it started' })
  expect(await world.theEnd()).toMatchObject({ state: 'partial', reason: 'idle' })
  const models = await fetch(`${world.url}/v1/models`, { headers: { authorization: `Bearer ${key}` } })
  expect(models.status).toBe(403)
  await expectVerified(world)
})

test('a run ends with its command, whoever has stopped reading, and whatever the command has left behind', async () => {
  const { env, theEnd } = await createExecWorld()
  // The one that is left behind keeps its output open, as a daemon that was started carelessly.
  const script = 'sleep 300 >/dev/null & echo "left $!"; read -r line; exit 7'
  const run = startCommand(
    ['sh', '-c', '"$@" <"$0"', '/dev/null', process.execPath, launcher, ...exec('sh', '-c', script)],
    { env },
  )
  run.process.stderr?.destroy()
  await pollUntil(() => run.process.exitCode !== null, { what: 'it has ended', deadlineMs: SETTLE_MS })
  const left = Number(/left (\d+)/.exec(run.output.out)?.[1])
  onTestFinished(() => void process.kill(left, 'SIGKILL'))
  expect(run.process.exitCode).toBe(7)
  expect(await theEnd()).toMatchObject({ state: 'completed' })
})

test('a run that ends before its command says so at once: nothing was asked for too long', async () => {
  const world = await createExecWorld()
  const waits = 'setTimeout(() => {}, 60_000); console.log("ready")'
  const run = startPurser(['exec', '--budget', '0.5', '--idle', '1', '--', process.execPath, '-e', waits], {
    env: world.env,
  })
  await pollUntil(() => run.output.err.includes('The run is over, and requests are refused: partial'), {
    what: 'the end of the run is told',
    deadlineMs: SETTLE_MS,
  })
  run.process.kill('SIGTERM')
  expect(await run.ended).toMatchObject({ code: 'SIGTERM', err: expect.stringContaining('Cost report') })
})

test('where no API answers nothing is started, and the message says so', async () => {
  const env = { PURSER_URL: 'http://127.0.0.1:1', PURSER_KEY: `purser_pk_${'x'.repeat(43)}` }
  const away = await startPurser(exec('echo', 'started'), { env }).ended
  expect(away).toMatchObject({ code: 1, out: '', err: 'purser exec: No Purser answers at http://127.0.0.1:1.\n' })
  const unmeant = await startPurser(['exec', '--', 'pwd'], { env }).ended
  expect(unmeant).toMatchObject({ code: 2, err: expect.stringContaining('--budget is missing') })
})

test('on a terminal a line shows the figures, more money is asked for, and Ctrl-C reaches the command once', async () => {
  const world = await createExecWorld()
  const asker = await writeAsker()
  const waits = 'process.on("SIGINT", () => { console.log("interrupted"); setTimeout(() => process.exit(9), 500) })'
  const program = `${waits}; process.argv.splice(1, 0, "x"); await import(${JSON.stringify(asker)}); console.log("waiting"); setInterval(() => {}, 1_000)`
  const command = [launcher, 'exec', '--budget', '0.001', '--model', 'steady', '--', process.execPath]
  const line = [process.execPath, ...command, '--input-type=module', '-e', program, '100', '4000!']
    .map(quoted)
    .join(' ')
  const terminal = openTerminal(world.env, line)
  await terminal.until(/Top up by how many USD\?/)
  terminal.type('much\n')
  await terminal.until(/Write a decimal[\s\S]*Top up by how many USD\?/)
  terminal.type('0.5\n')
  const figures = /purser {2}spent 0\.00\d+ · held 0\.00\d+ · left 0\.5\d+ USD · 2 calls/
  await pollUntil(() => figures.test(terminal.seen()), { what: 'the figures', deadlineMs: SETTLE_MS })
  await pollUntil(() => terminal.seen().includes('waiting'), { what: 'it waits', deadlineMs: SETTLE_MS })
  terminal.type('\u0003')
  expect(await terminal.ended).toBe(9)
  const seen = terminal.seen()
  expect(seen.match(/interrupted/g)).toHaveLength(1)
  expect(seen).toContain('Cost report')
  expect(await world.theEnd()).toMatchObject({ state: 'completed' })
  await expectVerified(world)
})

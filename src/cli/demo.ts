import { readArguments } from './arguments.ts'
import { playKilled, playKilledAfterAnswer } from './demo/scene-kill.ts'
import { playCancelled, playPaused, playPlain } from './demo/scene-money.ts'
import { setUp } from './demo/set-up.ts'
import { type Evidence, printText, printTitle, type Stage } from './demo/stage.ts'
import type { Outputs, Screen } from './screen.ts'
import { stayUp, withStack } from './up-session.ts'
import { evidenceOfStack } from './verify-evidence.ts'
import { printVerification, verifyDatabase } from './verify.ts'

const USAGE = `Usage: purser demo [--question TEXT] [--sources FOLDER] [--json] [--stay]

  --question TEXT    what to find out
  --sources FOLDER   documents to answer from (*.md, *.mdx, *.txt) in place of those of the installed packages
  --json             print one JSON document about the runs; what goes on is told on standard error
  --stay             keep the stack up afterwards, until Ctrl-C

Brings up the local stack and plays five runs: with enough money, with too little and a top-up, with too little and a
cancel, and with a worker killed at the two worst moments. Then it recomputes the ledger.`

const QUESTION = 'In which order are the hooks of the Fastify request lifecycle executed?'

export async function demo(args: readonly string[], { out, err }: Outputs): Promise<number> {
  const { values } = readArguments(args, {
    options: {
      question: { type: 'string' },
      sources: { type: 'string' },
      json: { type: 'boolean' },
      stay: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
    usage: USAGE,
  })
  if (values.help) {
    out.line(USAGE)
    return 0
  }
  const screen = values.json ? err : out
  printText(screen, 'Purser runs long AI tasks that cannot overspend. This demo takes about a minute.')
  return withStack(process.env, async (stack) => {
    printTitle(screen, 1, 'A local stack, a project and its money')
    const stage = await setUp(stack, screen, { question: values.question ?? QUESTION, sources: values.sources })
    const runs = await playScenes(stage)
    printTitle(screen, runs.length + 2, 'Verify')
    printText(screen, 'Everything that was ever written in this data folder, recomputed from the journal:')
    const verification = await verifyDatabase(stack.databaseUrl, await evidenceOfStack(stack.dataDir))
    printVerification(screen, verification)
    if (values.json) out.line(JSON.stringify({ verify: { ok: verification.ok }, runs }, undefined, 2))
    printEnd(screen, stage, values.stay === true)
    if (values.stay) await stayUp()
    return verification.ok ? 0 : 1
  })
}

async function playScenes(stage: Stage): Promise<readonly Evidence[]> {
  const { screen, sandbox } = stage
  printTitle(screen, 2, 'A research run inside a budget envelope')
  const plain = await playPlain(stage)
  printTitle(screen, 3, 'The envelope is too small: pause, top up, go on')
  const paused = await playPaused(stage, plain)
  printTitle(screen, 4, 'The envelope is too small: cancel')
  const cancelled = await playCancelled(stage, plain)
  if (!sandbox) {
    printText(
      screen,
      '\nLeft out: two kills. Killing a worker in the middle of a request, and between its answer and the end of the activity, needs a provider that can be told to hold a request open: unset OPENAI_API_KEY to see both with the sandbox.',
    )
    return [plain, paused, cancelled]
  }
  printTitle(screen, 5, 'kill -9 in the middle of a request')
  const killed = await playKilled(stage, sandbox, plain)
  printTitle(screen, 6, 'kill -9 after the answer, before anybody knows')
  return [plain, paused, cancelled, killed, await playKilledAfterAnswer(stage, sandbox, plain)]
}

function printEnd(screen: Screen, { stack }: Stage, stays: boolean): void {
  screen.line(`\n${screen.paint('bold', 'Look further')}`)
  if (stays) {
    screen.line(`  API docs       ${stack.docsUrl}`)
    screen.line(`  Temporal UI    ${stack.temporalUiUrl ?? 'that of the Temporal at TEMPORAL_ADDRESS'}`)
    screen.line('  Ctrl-C stops everything.')
    return
  }
  printText(screen, 'npm run dev brings the same stack up again, with these runs in it, and stays:')
  screen.line(`  API docs       ${stack.docsUrl}`)
  if (stack.temporalUiUrl !== null) screen.line(`  Temporal UI    ${stack.temporalUiUrl}`)
  screen.line(`  data and logs  ${stack.dataDir}`)
}

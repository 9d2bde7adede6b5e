import { PurserClient } from '#client/purser-client.ts'
import { readArguments } from './arguments.ts'
import type { Outputs, Screen } from './screen.ts'
import { depositInto, ensureLocalAccount } from './up-account.ts'
import { stayUp, withStack } from './up-session.ts'
import { stackStatePath } from '#local/stack-state.ts'
import type { Stack } from '#local/stack.ts'

const USAGE = `Usage: purser up

Brings up Postgres, Temporal with its UI, the sandbox provider, the API and a worker on free loopback ports, and stays
until Ctrl-C. Data is kept between starts.

With OPENAI_API_KEY or ANTHROPIC_API_KEY, PURSER_PROVIDER_MODEL, PURSER_PROVIDER_INPUT_PRICE and PURSER_PROVIDER_OUTPUT_PRICE (USD per
1,000,000 tokens) in the environment that provider is used in place of the sandbox; OPENAI_BASE_URL is optional.`

/** What the local project is given once, so that runs can be started at once. In USD. */
const FIRST_DEPOSITS = [
  { balanceClass: 'direct', amount: '5', reference: 'first-direct' },
  { balanceClass: 'credit', amount: '1', reference: 'first-credit' },
] as const

export async function up(args: readonly string[], { out }: Outputs): Promise<number> {
  const { values } = readArguments(args, { options: { help: { type: 'boolean', short: 'h' } }, usage: USAGE })
  if (values.help) {
    out.line(USAGE)
    return 0
  }
  return withStack(process.env, async (stack) => {
    const operator = new PurserClient(stack.apiUrl, stack.operatorKey)
    const { account } = await ensureLocalAccount(process.env, operator)
    for (const deposit of FIRST_DEPOSITS) await depositInto(operator, account, deposit)
    printLinks(out, stack)
    out.line(`  project key    ${account.key}`)
    if (stack.isOperatorKeyNew) out.line(`  operator key   ${stack.operatorKey}`)
    else out.line(`  operator key   in ${stackStatePath(stack.dataDir)}`)
    out.line()
    out.line('In another terminal: npx purser run research --question "…"')
    out.line('Ctrl-C stops everything; data stays for the next start.')
    return stayUp(stack.unexpectedEnd)
  })
}

/** Where everything is. */
export function printLinks(screen: Screen, stack: Stack): void {
  screen.line(screen.paint('bold', 'Purser is up.'))
  screen.line(`  API            ${stack.apiUrl}/api/v1`)
  screen.line(`  API docs       ${stack.docsUrl}`)
  screen.line(
    `  clients        OPENAI_BASE_URL=${stack.apiUrl}/v1 ANTHROPIC_BASE_URL=${stack.apiUrl}, with the project's key`,
  )
  screen.line(`  Temporal UI    ${stack.temporalUiUrl ?? 'that of the Temporal at TEMPORAL_ADDRESS'}`)
  screen.line(`  models         ${describeProvider(stack)}`)
  screen.line(`  data and logs  ${stack.dataDir}`)
}

export function describeProvider({ provider, sandbox }: Stack): string {
  if (provider.kind !== 'sandbox') return `${provider.upstreamModel} at ${provider.baseUrl}`
  return `the sandbox provider at ${sandbox?.url ?? ''}: it answers from the documents alone, and costs nothing`
}

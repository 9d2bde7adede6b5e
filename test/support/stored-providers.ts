import { startEngine, type RunningEngine } from '#calls/start-engine.ts'
import { addProvider } from '#db/provider.ts'
import { secretBox, type SecretBox } from '#db/secret-box.ts'
import type { Provider } from '#providers/provider.ts'
import { onTestFinished } from 'vitest'
import type { World } from './world.ts'

/** An engine as a process has it that was given these keys for secrets, and what it complained of. */
export async function startKeyedEngine(
  world: Pick<World, 'db' | 'database'>,
  options: { readonly keys?: readonly string[]; readonly fixed?: readonly Provider[] } = {},
): Promise<{ readonly engine: RunningEngine; readonly complaints: readonly string[] }> {
  const { keys = [], fixed = [] } = options
  const complaints: string[] = []
  const engine = await startEngine({
    db: world.db,
    databaseUrl: world.database.appUrl,
    kind: 'test',
    providers: fixed,
    stored: {
      secrets: keys.length === 0 ? undefined : secretBox(keys.join('\n')),
      complain: (sentence) => void complaints.push(sentence),
    },
  })
  onTestFinished(() => engine.stop())
  return { engine, complaints }
}

export async function storeProvider(
  { db }: Pick<World, 'db'>,
  box: SecretBox,
  settings: { readonly name: string; readonly baseUrl: string; readonly apiKey: string },
): Promise<void> {
  const added = await db.transaction().execute((trx) => addProvider(trx, box, { kind: 'openai', ...settings }))
  if (typeof added === 'string') throw new Error(`${settings.name}: ${added}`)
}

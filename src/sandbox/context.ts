import type { ModelSettings, SandboxModel } from './config.ts'
import type { FaultBook } from './faults.ts'
import type { HoldBook } from './holds.ts'
import type { RequestLog } from './log.ts'
import type { PrefixCache } from './prompt.ts'

/** What the requests of one provider share. */
export interface SandboxContext {
  readonly currency: string
  readonly models: ReadonlyMap<string, SandboxModel>
  /** In place of what a model is configured with. */
  readonly settings: Map<string, ModelSettings>
  /** API keys by name. */
  readonly keys: ReadonlyMap<string, string>
  readonly log: RequestLog
  readonly faults: FaultBook
  readonly holds: HoldBook
  readonly cache: PrefixCache
  /** How long after its end a request can be asked for at `/v1/generation`. */
  readonly generations: { delayMs: number }
}

export function settingsOf(context: SandboxContext, model: SandboxModel): ModelSettings {
  return context.settings.get(model.name) ?? model.settings
}

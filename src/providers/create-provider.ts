import type { ProviderKind } from '#contracts/names.ts'
import type { ProviderSettings } from '#contracts/provider-settings.ts'
import { createAnthropic } from './anthropic.ts'
import { createOpenAiCompatible, createOpenRouter } from './openai-compatible.ts'
import type { Provider } from './provider.ts'

const kinds = {
  openai: createOpenAiCompatible,
  openrouter: createOpenRouter,
  anthropic: createAnthropic,
} as const satisfies Record<ProviderKind, (options: ProviderSettings & { readonly nowMs: () => number }) => Provider>

export function createProvider(settings: ProviderSettings, { nowMs }: { readonly nowMs: () => number }): Provider {
  return kinds[settings.kind]({ ...settings, nowMs })
}

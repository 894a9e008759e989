using System.Runtime.InteropServices;

namespace ZEngine.Models;

/// <summary>Learns a byte-level byte-pair encoding with GPT-2's split.</summary>
/// <remarks>Merges the most frequent pair of neighbouring tokens until the vocabulary is full (Sennrich et al., Neural Machine Translation
/// of Rare Words with Subword Units, 2016). Counts are kept up to date merge by merge, so the cost is that of the words a merge touches.
/// The same texts give the same tokenizer; among equally frequent pairs the one with the lowest ids wins.</remarks>
public static class BpeTrainer
{
    /// <summary>Learns from texts.</summary>
    /// <param name="texts">The texts, read once, each as it is.</param>
    /// <param name="vocabularySize">The wanted size, special tokens and the 256 bytes included. The result is smaller when the texts hold no
    /// further pair that occurs <paramref name="minimumCount"/> times.</param>
    /// <param name="specialTokens">Tokens that take the first ids and are matched in text as a whole.</param>
    /// <param name="minimumCount">How often a pair has to occur to be merged.</param>
    /// <returns>A tokenizer whose <see cref="Tokenizer.Save"/> writes a <c>tokenizer.json</c>.</returns>
    public static Tokenizer Train(IEnumerable<string> texts, int vocabularySize, IReadOnlyList<string>? specialTokens = null, int minimumCount = 2)
    {
        ArgumentNullException.ThrowIfNull(texts);
        ArgumentOutOfRangeException.ThrowIfLessThan(minimumCount, 1);
        specialTokens ??= [];
        ArgumentOutOfRangeException.ThrowIfLessThan(vocabularySize, 256 + specialTokens.Count);
        var run = new Run(specialTokens);
        run.CountWords(texts);
        run.Merge(vocabularySize, minimumCount);
        return run.Result();
    }

    private sealed class Run
    {
        private readonly List<string> _texts = [];
        private readonly Dictionary<string, int> _ids = new(StringComparer.Ordinal);
        private readonly int[] _charIds = new int[char.MaxValue + 1];
        private readonly List<AddedToken> _special = [];
        private readonly List<(int Left, int Right)> _merges = [];

        private int[][] _words = [];                            // the symbols of each distinct word
        private int[] _lengths = [];
        private long[] _counts = [];                            // how often the word occurs
        private readonly Dictionary<ulong, long> _pairCounts = [];
        private readonly Dictionary<ulong, List<int>> _wordsOfPair = [];
        private readonly PriorityQueue<ulong, Rank> _queue = new();
        private readonly List<ulong> _changed = [];

        public Run(IReadOnlyList<string> specialTokens)
        {
            foreach (string text in specialTokens)
            {
                ArgumentException.ThrowIfNullOrEmpty(text, nameof(specialTokens));
                if (_ids.ContainsKey(text)) throw new ArgumentException($"The special token \"{text}\" is given twice.", nameof(specialTokens));
                // The vocabulary spells the bytes with single characters, so this name is taken.
                if (text.Length == 1 && ByteAlphabet.ToByte(text[0]) >= 0)
                    throw new ArgumentException($"The special token \"{text}\" is the spelling of a byte.", nameof(specialTokens));
                _special.Add(new(Token(text), text, false, false, false, false, IsSpecial: true));
            }
            foreach (char c in Enumerable.Range(0, 256).Select(b => ByteAlphabet.ToChar((byte)b)).Order()) _charIds[c] = Token(c.ToString());
        }

        public void CountWords(IEnumerable<string> texts)
        {
            var counts = new Dictionary<string, long>(StringComparer.Ordinal);
            var lookup = counts.GetAlternateLookup<ReadOnlySpan<char>>();
            var split = new ByteLevelPreTokenizer(addsPrefixSpace: false, useRegex: true);
            var buffer = new PieceBuffer();
            foreach (string text in texts)
            {
                if (text is null) throw new ArgumentException("A text is null.", nameof(texts));
                buffer.Set(UnicodeText.WellFormed(text), isAtStart: true);
                split.Apply(buffer);
                foreach (Piece piece in buffer.Pieces)
                    CollectionsMarshal.GetValueRefOrAddDefault(lookup, buffer[piece], out _)++;
            }
            _words = [.. counts.Keys.Select(word => word.Select(c => _charIds[c]).ToArray())];
            _lengths = [.. _words.Select(word => word.Length)];
            _counts = [.. counts.Values];
        }

        public void Merge(int vocabularySize, int minimumCount)
        {
            for (int w = 0; w < _words.Length; w++)
                for (int i = 1; i < _lengths[w]; i++) Change(Pair(_words[w][i - 1], _words[w][i]), _counts[w], w);
            Enqueue();

            while (_texts.Count < vocabularySize && _queue.TryDequeue(out ulong pair, out Rank rank))
            {
                long count = _pairCounts.GetValueOrDefault(pair);
                if (count != rank.Count) continue;              // an outdated entry; the current one is in the queue too
                if (count < minimumCount) break;
                (int left, int right) = ((int)(pair >> 32), (int)pair);
                string text = _texts[left] + _texts[right];
                if (_special.Exists(token => token.Content == text)) continue;

                // Two pairs may spell the same token; the second merge leads to it as well.
                int token = _ids.TryGetValue(text, out int known) ? known : Token(text);
                _merges.Add((left, right));
                foreach (int w in _wordsOfPair[pair]) Apply(w, left, right, token);
                _pairCounts.Remove(pair);
                _wordsOfPair.Remove(pair);
                Enqueue();
            }
        }

        public BpeTokenizer Result()
        {
            byte[] json = TokenizerWriter.ByteLevel(CollectionsMarshal.AsSpan(_texts), _merges, _special, useRegex: true);
            return TokenizerReader.Read(json, "the trained tokenizer", null, SpecialRoles.ConfigFileName);
        }

        private int Token(string text)
        {
            _ids.Add(text, _texts.Count);
            _texts.Add(text);
            return _texts.Count - 1;
        }

        private void Apply(int w, int left, int right, int token)
        {
            int[] word = _words[w];
            int length = _lengths[w], kept = 0;
            long count = _counts[w];
            for (int i = 0; i < length; i++)
            {
                if (i + 1 == length || word[i] != left || word[i + 1] != right)
                {
                    word[kept++] = word[i];
                    continue;
                }
                if (kept > 0)
                {
                    Change(Pair(word[kept - 1], left), -count, w);
                    Change(Pair(word[kept - 1], token), count, w);
                }
                if (i + 2 < length)
                {
                    Change(Pair(right, word[i + 2]), -count, w);
                    Change(Pair(token, word[i + 2]), count, w);
                }
                word[kept++] = token;
                i++;
            }
            _lengths[w] = kept;
        }

        private void Change(ulong pair, long by, int w)
        {
            CollectionsMarshal.GetValueRefOrAddDefault(_pairCounts, pair, out _) += by;
            _changed.Add(pair);
            if (by < 0) return;
            ref List<int>? words = ref CollectionsMarshal.GetValueRefOrAddDefault(_wordsOfPair, pair, out _);
            words ??= [];
            // Changes come word by word, so a repetition stands at the end. A word that no longer holds the pair costs only a look.
            if (words.Count == 0 || words[^1] != w) words.Add(w);
        }

        private void Enqueue()
        {
            _changed.Sort();
            for (int i = 0; i < _changed.Count; i++)
            {
                ulong pair = _changed[i];
                if (i > 0 && _changed[i - 1] == pair || !_pairCounts.TryGetValue(pair, out long count)) continue;
                if (count > 0) _queue.Enqueue(pair, new(count, pair));
                else
                {
                    _pairCounts.Remove(pair);
                    _wordsOfPair.Remove(pair);
                }
            }
            _changed.Clear();
        }

        private static ulong Pair(int left, int right) => (ulong)(uint)left << 32 | (uint)right;
    }

    /// <summary>Highest count first, then lowest pair.</summary>
    private readonly record struct Rank(long Count, ulong Pair) : IComparable<Rank>
    {
        public int CompareTo(Rank other) => Count != other.Count ? other.Count.CompareTo(Count) : Pair.CompareTo(other.Pair);
    }
}

#include "bench_texts.h"

namespace fathom {
namespace {

constexpr const char* kProse = R"(The ferry left the harbour an hour before sunrise. Nora stood at
the rail with both hands around a cup of tea and watched the lamps of the town grow smaller. She had
lived there for eleven years, first in the room above the bakery and later in the small house near
the church, and she had not expected that leaving would be so quiet. Nobody had come to the pier
except the postman, who had only wanted to know whether he should forward her letters.

Behind her a boy asked his father how deep the water was. The father said that it was deeper than
the church tower was high, and the boy thought about this for some time. Then he wanted to know
whether anyone had ever measured it. Nora smiled. For most of those eleven years she had done
exactly that: she had gone out with the survey boat on every calm day, lowered a line or listened to
an echo, and written numbers into a grey book. The chart that hung in the cabin of this ferry was
made of her numbers. The ferry would not run aground today, because on a cold morning in her second
year she had found the sandbank that nobody remembered.

She finished the tea and went inside. The captain was an old man with a blue cap, and he knew her.

"So you are really going," he said.

"I am really going," said Nora. "There is a lake in the north that has no chart at all. They say it
has no bottom either."

"Every lake has a bottom."

"That is what I told them. They asked me to come and prove it."

The captain laughed and pointed at the chart on the wall. The paper was brown at the edges, and
somebody had drawn a small ship beside the sandbank. He told her that his daughter had drawn it,
years ago, and that he had never had the heart to remove it. Then he took a pencil from behind his
ear and gave it to her.

"Write your name on it," he said. "In the corner. People should know)";

constexpr const char* kCode = R"("""Counts, sums and other statistics of a list of measurements."""

import math


class Measurements:
    """A list of numbers with a unit, such as temperatures in degrees."""

    def __init__(self, values, unit):
        self.values = list(values)
        self.unit = unit

    def count(self):
        """Returns the number of values."""
        return len(self.values)

    def total(self):
        """Returns the sum of the values."""
        result = 0.0
        for value in self.values:
            result += value
        return result

    def mean(self):
        """Returns the arithmetic mean of the values."""
        if not self.values:
            raise ValueError("mean of an empty list")
        return self.total() / self.count()

    def smallest(self):
        """Returns the smallest value."""
        if not self.values:
            raise ValueError("smallest value of an empty list")
        result = self.values[0]
        for value in self.values:
            if value < result:
                result = value
        return result

    def largest(self):
        """Returns the largest value."""
        if not self.values:
            raise ValueError("largest value of an empty list")
        result = self.values[0]
        for value in self.values:
            if value > result:
                result = value
        return result

    def variance(self):
        """Returns the mean of the squared distances from the mean."""
        if not self.values:
            raise ValueError("variance of an empty list")
        mean = self.mean()
        result = 0.0
        for value in self.values:
            result += (value - mean) ** 2
        return result / self.count()

    def deviation(self):
        """Returns the square root of the variance."""
        if not self.values:
            raise ValueError("deviation of an empty list")
        return math.sqrt(self.variance())

    def scaled(self, factor, unit):
        """Returns the values multiplied by a factor, in another unit."""
        result = []
        for value in self.values:
            result.append(value * factor)
        return Measurements(result, unit)

    def above(self, limit):
        """Returns the values that are above a limit."""
        result = []
        for value in self.values:
            if value > limit:
                result.append(value)
        return Measurements(result, self.unit)

    def below(self, limit):
        """Returns the values that are below a limit."""
)";

constexpr const char* kEdit = R"(Text:
The library of our village is open on four days of the weak. It was founded by a teacher in 1921,
when she put her own books in the waiting room of the train station so that travellers could reed
them. Most travellers brought the books back, and some of them brought new ones. After ten years the
waiting room was to small, and the railway gave her an old goods shed next to the platform.
Volunteers painted the walls, build shelves from the boards of wine boxes and laid a floor of red
bricks. The shed is still the main room of the library today. In winter it is heated by an iron
stove, and the person who arrives first has to lite the fire.

The library has about nine thousand books, two hundred maps and a collection of seed packets that
gardeners exchange in spring. Children may borrow five books at a time, adults may borrow ten, and
nobody has to pay. If a book is late, the reader is asked to tell a storey to the younger children
on Saturday morning. Some readers are late on purpose. The most popular stories are wrote down by
the librarian and kept in a green folder, which can be borrowed like any other book.

Last year the library received a letter from a reader in an other country. He had taken a book about
bridges from the waiting room in 1938 and had never been able to return it. Now his granddaughter
had found it in a suitcase. The book came with the letter, together with a drawing of the station as
he remembered it. Both are shown in a glass case beside the door, and the librarian has decided that
his fine is payed.

Correct the spelling and the grammar of the text. Change nothing else.

Corrected text:
The library of our village is open on four days of the week. It was founded by a teacher in 1921,
when)";

constexpr const char* kQuote = R"(Rules of the Garden Society

1. Plots. The society rents out forty plots. A plot is rented for one year, from the first of March
to the last day of February. A member may rent one plot, and a second one if no applicant is
waiting. The rent is due before the year begins. A plot whose rent has not been paid by the end of
March is given to the first applicant on the waiting list.

2. Water. Each plot has one tap. Watering with a hose is allowed before nine in the morning and
after seven in the evening. Between these hours only watering cans may be used. In a dry summer the
board may forbid hoses altogether; a notice at the gate then states the first and the last day of
the restriction. Rain barrels may be used at any time.

3. Trees. Trees may be planted if they stay below four metres. A tree must be at least two metres
away from the border of the plot. Walnut trees are not allowed, because little grows under them. A
member who leaves the society need not remove trees, but the next tenant may do so without asking.

4. Huts. A hut may have an area of up to twelve square metres and a height of up to two and a half
metres. It must not be used as a dwelling. Open fires are forbidden in huts and within five metres
of them. Gas bottles must be stored outside in a box with holes for air. The society's insurance
does not cover the contents of huts.

5. Animals. Bees may be kept with the consent of all neighbours, which must be renewed every year. A
keeper of bees puts up a sign at the border of the plot and provides water for the bees. Hens may be
kept in summer, up to six on a plot, but no cocks. Dogs must be on a leash on the paths. Cats cannot
be governed by rules.

6. Quiet. Machines with motors may be used on working days from eight to twelve and from two to six.
They may not be used on Sundays. The annual summer party is exempt from this rule until midnight.

Question: Which rules apply to keeping bees? Quote the rule in full, then explain it in your own
words.

Answer: The rule reads: "5. Animals. Bees may be kept with)";

constexpr const char* kList = R"(Stations of the northern line, in the order of travel:

Station 1: Harbour. Distance from the start: 0 km. Platforms: 4. Opened in 1902. Connections: ferry, tram.
Station 2: Market Square. Distance from the start: 2 km. Platforms: 2. Opened in 1902. Connections: tram, bus.
Station 3: Old Mill. Distance from the start: 5 km. Platforms: 2. Opened in 1904. Connections: bus.
Station 4: University. Distance from the start: 7 km. Platforms: 3. Opened in 1931. Connections: tram, bus.
Station 5: Botanical Garden. Distance from the start: 9 km. Platforms: 2. Opened in 1931. Connections: none.
Station 6: West Bridge. Distance from the start: 12 km. Platforms: 2. Opened in 1910. Connections: bus.
Station 7: Brickworks. Distance from the start: 15 km. Platforms: 3. Opened in 1910. Connections: goods line.
Station 8: Green Hill. Distance from the start: 19 km. Platforms: 2. Opened in 1912. Connections: bus.
Station 9: Lower Village. Distance from the start: 22 km. Platforms: 1. Opened in 1912. Connections: none.
Station 10: Upper Village. Distance from the start: 24 km. Platforms: 1. Opened in 1912. Connections: bus.
Station 11: Quarry. Distance from the start: 28 km. Platforms: 2. Opened in 1915. Connections: goods line.
Station 12: Forest Lodge. Distance from the start: 33 km. Platforms: 1. Opened in 1926. Connections: none.
Station 13: Long Lake. Distance from the start: 37 km. Platforms: 2. Opened in 1926. Connections: ferry, bus.
Station 14: Summer Camp. Distance from the start: 41 km. Platforms: 1. Opened in 1954. Connections: none.
Station 15: Stone Bridge. Distance from the start: 46 km. Platforms: 2. Opened in 1926. Connections: bus.
Station 16: North Gate. Distance from the start: 50 km. Platforms: 2. Opened in 1927. Connections: bus.
Station 17:)";

constexpr BenchText kTexts[] = {
    {"prose", kProse}, {"code", kCode}, {"edit", kEdit}, {"quote", kQuote}, {"list", kList}};

}  // namespace

std::span<const BenchText> bench_texts() { return kTexts; }

}  // namespace fathom
